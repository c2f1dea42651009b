#!/usr/bin/python
"""Get container images: pull them, or build them from package mirrors where no registry answers."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shlex
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.image_parts import (
    LABEL,
    UNREACHABLE,
    Progress,
    RefusedError,
    apt_settings,
    client,
    host_mirror,
    inputs_hash,
    inspect,
    loaded_digests,
    no_room,
)

DOCUMENTATION = r"""
---
module: container_images
short_description: Pull or build the images of the stack
description:
  - Each image is pulled, built, or (mode C(auto)) pulled and, where the registry does not answer, built.
  - A build is skipped when the hash of its inputs is the image's C(deployctl.inputs) label. Builds run side by side.
  - The host's CA bundle and package mirror settings reach a build as BuildKit secrets, so no layer holds them.
options:
  state:
    description:
      - C(inspected) only looks; C(present) gets what is missing; C(wanted) asks no engine what the images must be.
      - C(base) brings the base image of the settings' suite, and says where its packages come from.
    choices: [inspected, present, wanted, base]
    default: present
    type: str
  settings:
    description: The images and how to get them, see the role's argument_specs.
    type: dict
    required: true
author:
  - deployctl
"""


class Builder:
    """Gets images with one docker client; thread safe."""

    def __init__(self, settings: dict[str, Any], progress: Progress | None) -> None:
        """Take the settings as the role hands them."""
        self.settings = settings
        self.docker = client()
        self.folder = Path(settings["folder"])
        self.progress = progress
        self.base_lock = threading.Lock()

    def say(self, name: str, text: str) -> None:
        """Progress of one image, where anybody listens."""
        if self.progress:
            self.progress.say(name, text)

    def full_reference(self, image: dict[str, Any]) -> str:
        """Registry prefix, upstream's name and, for an image that is only pulled, its digest."""
        prefix = str(self.settings.get("registry_prefix") or "").rstrip("/")
        return f"{prefix}/{image['reference']}" if prefix else str(image["reference"])

    def mode(self, image: dict[str, Any]) -> str:
        """Pull, build or auto; an image without a recipe can only be pulled."""
        mode = str(image.get("mode") or self.settings["default_mode"])
        return mode if image.get("build") or mode == "pull" else "pull"

    def wanted_hash(self, image: dict[str, Any]) -> str:
        """Hash of the inputs of a build, or an empty string."""
        build = image.get("build")
        if not build:
            return ""
        args = {k: str(v) for k, v in (build.get("args") or {}).items()}
        return inputs_hash(self.folder / build["context"], args, f"debian:{self.settings['base_suite']}")

    def wanted(self, image: dict[str, Any]) -> dict[str, Any]:
        """What an image must be to count as the wanted one."""
        return {
            "name": image["name"],
            "reference": self.full_reference(image),
            "mode": self.mode(image),
            "inputs": self.wanted_hash(image),
            "digest": image.get("digest") or "",
        }

    def look(self, image: dict[str, Any]) -> dict[str, Any]:
        """What is there of an image, and whether that is what is wanted."""
        reference = self.full_reference(image)
        found = inspect(self.docker, reference)
        state = {"reference": reference, "id": "", "source": "", "digest": "", "ok": False}
        if found is None:
            return state
        labels = (found.get("Config") or {}).get("Labels") or {}
        digests = [d.split("@", 1)[1] for d in found.get("RepoDigests") or [] if "@" in d]
        digests += loaded_digests(self.folder / "loaded.json", found["Id"])
        state.update(id=found["Id"], source="built" if LABEL in labels else "pulled", digest=(digests or [""])[0])
        if image.get("id"):
            state["ok"] = found["Id"] == image["id"]
        elif LABEL in labels:
            state["ok"] = self.mode(image) != "pull" and labels[LABEL] == self.wanted_hash(image)
        else:
            state["ok"] = self.mode(image) != "build" and (not image.get("digest") or image["digest"] in digests)
        return state

    def get(self, image: dict[str, Any]) -> None:
        """Bring one image here; raises RefusedError."""
        mode = self.mode(image)
        if mode in ("pull", "auto"):
            why = self.pull(image)
            if why is None:
                return
            if mode == "pull" or not UNREACHABLE.search(why):
                hint = "give the site's mirror as images_registry_prefix, or let it be built with images_mode: build"
                raise RefusedError(f"{image['name']}: pull of {self.full_reference(image)} failed: {why}. Hint: {hint}")
            self.say(image["name"], "registry does not answer, building")
        self.build(image)

    def pull(self, image: dict[str, Any]) -> str | None:
        """Pull; None when it worked, else what the engine said."""
        reference = self.full_reference(image)
        wanted = f"{reference.rsplit(':', 1)[0]}@{image['digest']}" if image.get("digest") else reference
        limit = int(self.settings["registry_timeout"])
        self.say(image["name"], f"pulling {wanted}")
        process = subprocess.Popen(
            [self.docker, "pull", wanted], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        spoke = threading.Event()

        def watch() -> None:
            # Only silence at the start means "no registry"; a large layer may take its time.
            if not spoke.wait(limit) and process.poll() is None:
                process.kill()

        threading.Thread(target=watch, daemon=True).start()
        last = ""
        for line in process.stdout or []:
            spoke.set()
            last = line.strip() or last
            self.say(image["name"], f"pulling, {last[:80]}")
        code = process.wait()
        if code == 0:
            if wanted != reference:
                subprocess.run([self.docker, "tag", wanted, reference], check=True, capture_output=True)
            return None
        return last if spoke.is_set() else f"i/o timeout: no answer within {limit} s"

    def base(self, name: str) -> str:
        """The base image: as it is, pulled, or made with debootstrap from the host's mirror."""
        suite = str(self.settings["base_suite"])
        reference = f"debian:{suite}"
        with self.base_lock:
            if inspect(self.docker, reference):
                return reference
            if self.settings["default_mode"] != "build":
                prefix = str(self.settings.get("registry_prefix") or "").rstrip("/")
                pulled = f"{prefix}/{reference}" if prefix else reference
                self.say(name, f"pulling base {pulled}")
                try:
                    done = subprocess.run(
                        [self.docker, "pull", "-q", pulled],
                        capture_output=True,
                        timeout=int(self.settings["registry_timeout"]),
                        check=False,
                    )
                    if done.returncode == 0:
                        subprocess.run([self.docker, "tag", pulled, reference], check=False, capture_output=True)
                        return reference
                except subprocess.TimeoutExpired:
                    pass
            self.bootstrap(name, suite, reference)
        return reference

    def mirror(self) -> str:
        """The Debian mirror for builds; raises RefusedError when none is known."""
        found = str(self.settings.get("apt_mirror") or "") or host_mirror()
        if not found:
            raise RefusedError(
                "no Debian mirror known on this host. Hint: set images_apt_mirror, or use images_mode: pull"
            )
        return found

    def bootstrap(self, name: str, suite: str, reference: str) -> None:
        """A minimal Debian without the mirror's address in it."""
        self.say(name, f"base {reference}: debootstrap")
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            root = Path(scratch) / "root"
            log = self.folder / "base.log"
            with log.open("w", encoding="utf-8") as out:
                command = [
                    "debootstrap",
                    "--variant=minbase",
                    "--include=ca-certificates,python3",
                    suite,
                    str(root),
                    self.mirror(),
                ]
                if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode != 0:
                    raise RefusedError(
                        f"base image: debootstrap failed, see {log}. "
                        f"Hint: is the mirror {self.mirror()} complete for {suite}?"
                    )
            (root / "etc/apt/sources.list").write_text("", encoding="utf-8")
            self.say(name, f"base {reference}: importing")
            left_out = [
                "var/cache/apt/archives/*.deb",
                "var/cache/apt/*.bin",
                "var/lib/apt/lists/*",
                "var/log/*",
                "usr/share/doc/*",
                "usr/share/man/*",
                "usr/share/locale/*",
                "dev/*",
            ]
            tar = subprocess.Popen(
                ["tar", "-C", str(root), *[f"--exclude=./{p}" for p in left_out], "-c", "."], stdout=subprocess.PIPE
            )
            done = subprocess.run(
                [
                    self.docker,
                    "import",
                    "--change",
                    'CMD ["bash"]',
                    "--change",
                    "LABEL deployctl.base=made-here",
                    "-",
                    reference,
                ],
                stdin=tar.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0 or tar.wait() != 0:
                raise RefusedError(f"base image: import failed: {done.stderr.strip()}")

    def secrets(self, scratch: Path) -> list[str]:
        """Build secrets: CA bundle, apt sources and settings, pip/Go environment. They exist only while a step runs."""
        suite, mirror = self.settings["base_suite"], self.mirror()
        files = {
            "apt_sources": f"deb {mirror} {suite} main\n",
            "apt_conf": apt_settings()
            + 'Dir::Etc::SourceList "/run/secrets/apt_sources";\nDir::Etc::SourceParts "/dev/null";\n',
            "build_env": "",
            "pip_conf": "",
        }
        env = {
            k: v
            for k, v in os.environ.items()
            if re.fullmatch(
                r"(?i)PIP_(?:EXTRA_)?INDEX_URL|PIP_TRUSTED_HOST|PIP_DEFAULT_TIMEOUT|GOPROXY|GONOSUMDB|GONOSUMCHECK|GOSUMDB|GOPRIVATE|https?_proxy|no_proxy|all_proxy",
                k,
            )
        }
        env.update({k: str(v) for k, v in (self.settings.get("build_env") or {}).items()})
        files["build_env"] = "".join(f"{k}={shlex.quote(v)}\n" for k, v in sorted(env.items()))
        for path in (
            os.environ.get("PIP_CONFIG_FILE", ""),
            str(Path("~/.config/pip/pip.conf").expanduser()),
            "/etc/pip.conf",
        ):
            if path and Path(path).is_file():
                files["pip_conf"] = Path(path).read_text(encoding="utf-8")
                break
        flags = []
        for key, text in files.items():
            path = scratch / key
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600)
            flags += ["--secret", f"id={key},src={path}"]
        bundle = next(
            (
                p
                for p in (
                    str(self.settings.get("ca_file") or ""),
                    os.environ.get("SSL_CERT_FILE", ""),
                    "/etc/ssl/certs/ca-certificates.crt",
                    "/etc/pki/tls/certs/ca-bundle.crt",
                )
                if p and Path(p).is_file()
            ),
            "",
        )
        if bundle:
            flags += ["--secret", f"id=ca,src={bundle}"]
        return flags

    def build(self, image: dict[str, Any]) -> None:
        """Build with BuildKit; the log stays in the build folder. Raises RefusedError."""
        name = image["name"]
        base = self.base(name)
        context = self.folder / image["build"]["context"]
        args = {k: str(v) for k, v in (image["build"].get("args") or {}).items()}
        log = self.folder / f"{name}.log"
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            command = [self.docker, "build", "--progress=plain", "--pull=false", "--build-arg", f"BASE={base}"]
            for key, value in args.items():
                command += ["--build-arg", f"{key}={value}"]
            command += [
                "--label",
                f"{LABEL}={self.wanted_hash(image)}",
                *self.secrets(Path(scratch)),
                "-t",
                self.full_reference(image),
                str(context),
            ]
            self.say(name, "building")
            with log.open("w", encoding="utf-8") as out:
                process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "DOCKER_BUILDKIT": "1"},
                )
                for line in process.stdout or []:
                    out.write(line)
                    out.flush()
                    step = re.match(r"#\d+ (?:\[(.+?)\] (.*)|(\d+\.\d+) (.*))", line)
                    if step:
                        text = f"[{step.group(1)}] {step.group(2)}" if step.group(1) else step.group(4)
                        self.say(name, "building " + re.sub(r"\s+", " ", text)[:60])
            if process.wait() != 0:
                tail = " / ".join(line.strip() for line in log.read_text(encoding="utf-8").splitlines()[-12:])[-900:]
                raise RefusedError(
                    f"{name}: build failed, log on the host in {log}: {tail}. "
                    "Hint: are the package mirrors reachable from a container?"
                )
        self.say(name, "built")


def main() -> None:
    """Look at every image; get what is missing, all side by side; report each."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["inspected", "present", "wanted", "base"], "default": "present"},
            "settings": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    settings = module.params["settings"]
    images = settings["images"]
    working = module.params["state"] == "present" and not module.check_mode
    builder = Builder(settings, Progress(Path(settings["folder"]) / "progress.json") if working else None)
    if module.params["state"] == "wanted":
        module.exit_json(changed=False, images=[builder.wanted(i) for i in images])
    if module.params["state"] == "base":
        try:
            base = f"debian:{settings['base_suite']}" if module.check_mode else builder.base("base")
            module.exit_json(changed=False, base=base, mirror=builder.mirror(), apt_settings=apt_settings())
        except RefusedError as error:
            module.fail_json(msg=str(error))
    before = {i["name"]: builder.look(i) for i in images}
    missing = [name for name, state in before.items() if not state["ok"]]
    problems: list[str] = []
    if working:
        problems = no_room(builder.docker, float(settings["min_free_gib"])) if missing else []
        if problems:
            module.fail_json(msg="; ".join(problems), missing=missing)
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(len(missing), 1)) as pool:
            jobs = [pool.submit(builder.get, i) for i in images if i["name"] in missing]
            for job in jobs:
                try:
                    job.result()
                except (RefusedError, OSError, subprocess.SubprocessError) as error:
                    problems.append(str(error))
        if problems:
            module.fail_json(msg="; ".join(problems), missing=missing)
        before = {i["name"]: builder.look(i) for i in images}
    module.exit_json(changed=working and bool(missing), images=before, missing=missing)


if __name__ == "__main__":
    main()
