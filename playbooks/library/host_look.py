#!/usr/bin/python
"""Look at a host: what it is, what runs on it, and whether it has what a site needs. Changes nothing."""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from ansible.module_utils import host_parts as parts
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: host_look
short_description: What a host is and what runs on it
description:
  - Looks only. Nothing is written, no package list refreshed, no image pulled; with C(gpu_images) one container runs
    for as long as it takes to list the GPUs, without network, and is gone afterwards.
  - Never fails. What cannot be read is C(null) or empty, and C(errors) says why, by probe.
options:
  needs:
    description:
      - What the site needs of this host. All keys are optional.
      - C(ports) [{port, address}], C(folders) [path], C(urls) [{url, env, ca_file}], C(images) [reference],
        C(models) {name of the model, its folder}, C(sources) {name of the model, the path it is served from},
        C(outside) [port that clients come to], C(docker_package) (name of the engine's package),
        C(gpu_images) [reference; the first that is there lists the GPUs].
    type: dict
    default: {}
  control_time:
    description: Seconds since 1970 on the control node, when the module was called.
    type: float
  timeout:
    description: Seconds that each probe may take.
    type: int
    default: 15
  gpu_timeout:
    description: Seconds that the container with the GPUs may take.
    type: int
    default: 60
author:
  - deployctl
"""

EFI = Path("/sys/firmware/efi")
BEGAN = time.time()  # before anything slow: the clock is compared with the control node's
NVIDIA = ("*nvidia*", "libcuda1*", "cuda-drivers*")


class Probes:
    """Each public method is one probe: it returns its part of the answer, and may raise."""

    def __init__(self, needs: dict, control_time: float | None, timeout: int, gpu_timeout: int) -> None:
        """Look for these needs; each program may take `timeout` seconds."""
        self.needs = needs
        self.control_time = control_time
        self.timeout = timeout
        self.gpu_timeout = gpu_timeout

    def run(self, *words: str, timeout: int | None = None) -> subprocess.CompletedProcess:
        """Run a program; FileNotFoundError where it is not there, subprocess.TimeoutExpired where it hangs."""
        env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/bin"}
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout or self.timeout,
            check=False,
            env=env,
            stdin=subprocess.DEVNULL,
        )

    def said(self, *words: str) -> str:
        """Return what a program wrote on stdout; empty where it is not there or failed."""
        try:
            done = self.run(*words)
        except FileNotFoundError:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def os(self) -> dict:
        """Operating system and architecture."""
        return {**parts.os_release(read("/etc/os-release")), "arch": platform.machine()}

    def kernel(self) -> dict:
        """Running kernel, and whether the headers that a driver is built against are there."""
        release = platform.release()
        return {"release": release, "headers": Path(f"/lib/modules/{release}/build").exists()}

    def secure_boot(self) -> str:
        """enabled, disabled, unsupported, or empty."""
        found = sorted(EFI.glob("efivars/SecureBoot-*"))
        variable = found[0].read_bytes() if found else b""
        return parts.secure_boot(self.said("mokutil", "--sb-state"), variable, EFI.exists())

    def boot_key(self) -> bool:
        """Whether the firmware knows the key with which DKMS signs what it builds."""
        key = parts.boot_key(read("/etc/os-release"))
        if not Path(key).is_file():
            return False
        done = self.run("mokutil", "--test-key", key)
        return parts.key_enrolled(done.stdout + done.stderr)

    def packages(self) -> dict:
        """NVIDIA packages that are installed, which of them are held, and what updates by itself."""
        # Not apt-mark: it would write apt's cache where it is old.
        if shutil.which("dpkg-query"):
            form = "${Package} ${Version} ${db:Status-Abbrev}\n"
            listed = self.run("dpkg-query", "--show", f"--showformat={form}", *NVIDIA, "unattended-upgrades").stdout
            found, held = parts.packages(listed), parts.held(listed)
            updates = parts.apt_updates(self.said("apt-config", "dump"))
            updates["enabled"] = updates["enabled"] and "unattended-upgrades" in found
            found.pop("unattended-upgrades", None)
            return {"kind": "apt", "nvidia": found, "held": held, **updates}
        if shutil.which("rpm"):
            found = parts.packages(self.said("rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", *NVIDIA))
            files = ("/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml")
            held = [name for file in files for name in parts.dnf_held(read(file))]
            timer = self.said("systemctl", "is-enabled", "dnf-automatic-install.timer", "dnf-automatic.timer")
            return {"kind": "dnf", "nvidia": found, "held": held, "enabled": "enabled" in timer, "blacklist": []}
        return {"kind": "", "nvidia": {}, "held": [], "enabled": False, "blacklist": []}

    def docker(self) -> dict:
        """The engine, and which of the images are there."""
        if not shutil.which("docker"):
            # Without its caches: this module writes nothing.
            caches = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
            named = self.needs.get("docker_package")
            told = re.search(r"Candidate: (\d\S*)", self.said("apt-cache", *caches, "policy", named) if named else "")
            return {"present": False, "answers": False, "candidate": told.group(1) if told else ""}
        if other := another_docker():
            return {"present": True, "answers": False, "other": other}
        done = self.run("docker", "info", "--format", "{{json .}}")
        found = {"present": True, **parts.docker_info(done.stdout)}
        if not found["answers"]:
            found["why"] = found["why"] or complaint(done.stderr)
            return found
        there = [image for image in self.needs.get("images") or [] if self.said("docker", "image", "inspect", image)]
        return {**found, "images": there}

    def toolkit(self) -> str:
        """Version of the container toolkit; empty when it is not there."""
        words = self.said("nvidia-ctk", "--version").split()
        return next((word for word in words if word[:1].isdigit()), "")

    def cdi(self) -> list:
        """Names of the devices that containers can ask for."""
        found = parts.cdi_devices(self.said("nvidia-ctk", "cdi", "list"))
        files = [file for folder in ("/etc/cdi", "/var/run/cdi") for file in sorted(Path(folder).glob("*"))]
        texts = [read(str(file)) for file in files if file.suffix in (".json", ".yaml", ".yml")]
        return sorted({*found, *(name for text in texts for name in parts.cdi_spec(text))})

    def gpu_container(self) -> dict:
        """UUIDs of the GPUs that a container sees, or why none was asked."""
        wanted = self.needs.get("gpu_images") or []
        if not wanted:
            return {"state": "skipped", "why": "no GPU is planned here"}
        image = next((name for name in wanted if self.said("docker", "image", "inspect", name)), "")
        if not image:
            return {"state": "skipped", "why": "none of the images is here yet"}
        name = f"deployctl-doctor-{os.getpid()}"
        words = ["docker", "run", "--rm", "--name", name, "--pull", "never", "--network", "none"]
        words += ["--device", "nvidia.com/gpu=all", "--entrypoint", "nvidia-smi", image, "-L"]
        try:
            done = self.run(*words, timeout=self.gpu_timeout)
        except subprocess.TimeoutExpired:
            self.run("docker", "rm", "--force", name)
            return {"state": "failed", "why": f"no answer within {self.gpu_timeout} s", "image": image}
        if done.returncode:
            return {"state": "failed", "why": complaint(done.stderr or done.stdout), "image": image}
        return {"state": "ok", "uuids": parts.gpu_uuids(done.stdout), "image": image}

    def folders(self) -> list:
        """Free space for each folder and for the engine's own; what is not there yet is measured at its parent."""
        root = self.said("docker", "info", "--format", "{{.DockerRootDir}}").strip() or "/var/lib/docker"
        wanted = [space(folder) for folder in self.needs.get("folders") or []]
        return [*wanted, {**space(root), "engine": True}]

    def firewall(self) -> dict:
        """The host's own firewall that is on, and which of the gateway's ports it lets through; empty without one."""
        ports = [int(port) for port in self.needs.get("outside") or []]
        if self.said("firewall-cmd", "--state").strip() == "running":
            asked = {port: self.said("firewall-cmd", f"--query-port={port}/tcp").strip() == "yes" for port in ports}
            return {"name": "firewalld", "open": [port for port in ports if asked[port]]}
        if re.search(r"^ENABLED=yes", read("/etc/ufw/ufw.conf"), re.M):
            rules = self.said("ufw", "status")
            found = [port for port in ports if re.search(rf"^{port}(/tcp)?\s+ALLOW", rules, re.M)]
            return {"name": "ufw", "open": found}
        return {}

    def models(self) -> list:
        """Names of the models whose folder holds a manifest."""
        named = self.needs.get("models") or {}
        return sorted(name for name, folder in named.items() if (Path(folder) / ".deployctl.json").is_file())

    def sources(self) -> list:
        """Names of the models that lie on this host by themselves, and do."""
        named = self.needs.get("sources") or {}
        return sorted(name for name, folder in named.items() if (Path(folder) / "config.json").is_file())

    def clock(self) -> dict:
        """Seconds by which this host is ahead of the control node (the call's own time included), and NTP's word."""
        synchronised = self.said("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
        ahead = None if self.control_time is None else round(BEGAN - self.control_time, 2)
        return {"ahead_seconds": ahead, "ntp": {"yes": True, "no": False}.get(synchronised)}

    def ports(self) -> list:
        """Who listens on the ports that are wanted: process and container, where they can be known."""
        wanted = {entry["port"] for entry in self.needs.get("ports") or []}
        tables = [read(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        found = [entry for table in tables for entry in parts.listeners(table) if entry["port"] in wanted]
        owners = holders({entry["inode"] for entry in found}) if found else {}
        known = self.containers() if found else []
        return [told(entry, owners, known) for entry in found]

    def containers(self) -> list:
        """Running containers."""
        ids = self.said("docker", "ps", "--quiet", "--no-trunc").split()
        return parts.containers(self.said("docker", "inspect", "--type", "container", *ids)) if ids else []

    def urls(self) -> list:
        """Whether each address answers; any answer of HTTP is one, also `not allowed`."""
        return [{"url": wanted["url"], **self.reach(**wanted)} for wanted in self.needs.get("urls") or []]

    def reach(self, url: str, env: dict | None = None, ca_file: str = "") -> dict:
        """Ask one address, through the proxies of this host's environment and of `env`; nothing of it is read."""
        names = {key.lower(): str(value) for key, value in {**os.environ, **(env or {})}.items()}
        proxies = {kind: names[f"{kind}_proxy"] for kind in ("http", "https") if names.get(f"{kind}_proxy")}
        host = urllib.parse.urlsplit(url).hostname or ""
        direct = any(host == part.strip() or host.endswith("." + part.strip().lstrip("."))
                     for part in names.get("no_proxy", "").split(",") if part.strip())  # fmt: skip
        try:
            if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
                raise ValueError("not an address of HTTP")
            context = ssl.create_default_context(cafile=ca_file if ca_file and Path(ca_file).is_file() else None)
            handlers = (urllib.request.ProxyHandler({} if direct else proxies),
                        urllib.request.HTTPSHandler(context=context))  # fmt: skip
            with urllib.request.build_opener(*handlers).open(url, timeout=self.timeout) as answer:
                return {"ok": True, "why": str(answer.status)}
        except urllib.error.HTTPError as error:
            return {"ok": error.code < 500, "why": str(error.code)}
        except (OSError, ValueError) as error:
            return {"ok": False, "why": str(getattr(error, "reason", error))}

    def memory(self) -> dict:
        """Memory in GiB."""
        return parts.memory(read("/proc/meminfo"))

    def cgroup(self) -> int:
        """Version of the control groups."""
        return 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1

    def user(self) -> dict:
        """Who looks, and whether it is root."""
        return {"name": pwd.getpwuid(os.geteuid()).pw_name, "root": os.geteuid() == 0}

    def python(self) -> str:
        """Version of the Python that modules run with."""
        return platform.python_version()


PROBES = [name for name in vars(Probes) if name not in ("run", "said", "reach", "containers") and name[0] != "_"]


def another_docker() -> str:
    """What goes by the name of docker without being its engine as the roles know it; empty where it is."""
    place = Path(shutil.which("docker") or "/").resolve()
    if place.parts[:2] == ("/", "snap") or place.name == "snap":
        return "Docker of snap, which reads no /etc/docker and has no docker.service"
    try:
        with place.open("rb") as handle:
            wrapped = b"podman" in handle.read(500)  # a script of podman-docker
    except OSError:
        wrapped = False
    return "podman under the name of docker" if wrapped or place.name == "podman" else ""


def read(file: str) -> str:
    """Text of a file; empty when it is not there or may not be read."""
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def complaint(text: str) -> str:
    """The first line that names an error, else the last one that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower() or line.startswith("docker: ")]
    return (named[:1] or lines[-1:] or ["no word why"])[0][:300]


def space(folder: str) -> dict:
    """Free GiB where a folder lies or would lie; `device` tells file systems apart."""
    at = Path(folder)
    while not at.exists() and at != at.parent:
        at = at.parent
    found = os.statvfs(at)
    return {
        "path": folder,
        "at": str(at),
        "device": at.stat().st_dev,
        "free_gib": round(found.f_bavail * found.f_frsize / 2**30, 1),
        "total_gib": round(found.f_blocks * found.f_frsize / 2**30, 1),
    }


def holders(inodes: set) -> dict:
    """{inode of a socket: process id}, as far as /proc shows them to us."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for entry in (process / "fd").iterdir():
                inode = links.get(str(entry.readlink()))
                if inode:
                    found.setdefault(inode, int(process.name))
        except OSError:
            continue  # it has ended meanwhile, or is not ours to see
    return found


def told(entry: dict, owners: dict, known: list) -> dict:
    """One listener with the process and the container behind it."""
    pid = owners.get(entry["inode"])
    inside = parts.container_of(read(f"/proc/{pid}/cgroup")) if pid else ""
    container = next((c for c in known if c["id"] == inside), None)
    process = read(f"/proc/{pid}/comm").strip() if pid else ""
    if container is None and process in ("docker-proxy", "dockerd", ""):
        container = next((c for c in known if entry["port"] in c["ports"]), None)
    return {
        "port": entry["port"],
        "address": entry["address"],
        "pid": pid,
        "process": process,
        "container": container["name"] if container else "",
        "site": container["site"] if container else "",
    }


def look(probes: Probes, limit: float) -> dict:
    """Ask all probes at once; one that hangs is left behind, and says so in `errors`."""
    answers, errors = {}, {}

    def ask(name: str) -> None:
        try:
            answers[name] = getattr(probes, name)()
        except Exception as error:  # a probe that breaks is a line of the answer, never a traceback
            errors[name] = f"{type(error).__name__}: {error}"[:300]

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in PROBES]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.01))
    taken = dict(answers)
    silent = {name: f"no answer within {limit:g} s" for name in PROBES if name not in taken and name not in errors}
    return {**dict.fromkeys(PROBES), **taken, "errors": {**errors, **silent}}


def main() -> None:
    """Answer with `look`: the answer of each probe by its name, and `errors`."""
    module = AnsibleModule(
        argument_spec={
            "needs": {"type": "dict", "default": {}},
            "control_time": {"type": "float"},
            "timeout": {"type": "int", "default": 15},
            "gpu_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    probes = Probes(given["needs"], given["control_time"], given["timeout"], given["gpu_timeout"])
    # A probe may call several programs one after another.
    found = look(probes, given["timeout"] * 4 + given["gpu_timeout"])
    module.exit_json(changed=False, look=json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
    sys.exit(0)
