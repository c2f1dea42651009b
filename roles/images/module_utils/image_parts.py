"""What getting images needs and is not itself getting one: the client, progress, and the hash of a build's inputs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

LABEL = "deployctl.inputs"
# What a registry that cannot be reached looks like in the engine's answer. A registry that answers "no such image"
# or "denied" is reachable, and its answer is final.
UNREACHABLE = re.compile(
    r"no such host|connection refused|connection reset|i/o timeout|TLS handshake timeout|network is unreachable|"
    r"no route to host|Temporary failure in name resolution|Client\.Timeout|deadline exceeded|server misbehaving|"
    r"x509:|proxyconnect|EOF|Service Unavailable|Bad Gateway|Gateway Time",
    re.I,
)


class RefusedError(Exception):
    """An image could not be had; the text says why and what to do."""


class Progress:
    """What each image is doing, kept in a file for whoever waits."""

    def __init__(self, path: Path) -> None:
        """Remember where to write; the first line is written at once."""
        self.path = path
        self.begun = time.time()
        self.lines: dict[str, str] = {}
        self.lock = threading.Lock()
        self.write()

    def say(self, name: str, text: str) -> None:
        """Set the line of one image."""
        with self.lock:
            self.lines[name] = text
            self.write()

    def write(self) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        text = " | ".join(f"{k}: {v}" for k, v in self.lines.items()) or "starting"
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps({"pid": os.getpid(), "progress": text}), encoding="utf-8")
        scratch.replace(self.path)


def client() -> str:
    """The docker client that can build with BuildKit: one with buildx, or Debian's 20.10 which has it built in."""
    candidates = [c for c in ("/usr/bin/docker", shutil.which("docker") or "") if c and Path(c).exists()]
    for candidate in candidates:
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
        major = re.search(r"version (\d+)", version)
        buildx = subprocess.run([candidate, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if buildx or (major and int(major.group(1)) < 23):
            return candidate
    return candidates[0] if candidates else "docker"


def inspect(docker: str, reference: str) -> dict[str, Any] | None:
    """The engine's record of a local image, or None."""
    done = subprocess.run([docker, "image", "inspect", reference], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def no_room(docker: str, wanted: float) -> list[str]:
    """Why there is no room for missing images: Docker's own folder has less free space than wanted (GiB)."""
    done = subprocess.run(
        [docker, "info", "--format", "{{.DockerRootDir}}"], capture_output=True, text=True, check=False
    )
    root = done.stdout.strip() or "/var/lib/docker"
    free = shutil.disk_usage(root).free / 2**30 if Path(root).exists() else wanted
    if free >= wanted:
        return []
    return [
        f"{root} has {free:.1f} GiB free, {wanted:g} are wanted for images. "
        "Hint: free space there, or lower images_min_free_gib"
    ]


def loaded_digests(record: Path, image_id: str) -> list[str]:
    """Registry digests of an image that came in a file: the engine keeps those of pulled images only."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(digest) for digest in known.get(image_id, [])]


def apt_settings() -> str:
    """The host's apt settings that reaching its mirror takes: proxies, retries, and how stale an index may be."""
    kept = re.compile(r"Acquire::(https?::Proxy|Check-Valid-Until|Retries)")
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return "".join(line + "\n" for line in dumped.splitlines() if kept.match(line))


def host_mirror(etc: Path = Path("/etc")) -> str:
    """The mirror from which this Debian host takes its own release's `main`, or an empty string.

    Other repositories of the host (a vendor's, the security archive) hold no Debian to make a base image from.
    """
    try:
        release = (etc / "os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    codename = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    if not re.search(r"^ID=\"?debian", release, re.M) or codename is None:
        return ""
    apt = etc / "apt"
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            fields = dict(re.findall(r"^(URIs|Suites|Components|Enabled):[ \t]*(.+)$", stanza, re.M))
            wanted = (
                codename.group(1) in fields.get("Suites", "").split() and "main" in fields.get("Components", "").split()
            )
            if wanted and fields.get("Enabled", "yes").strip() != "no" and fields.get("URIs"):
                return fields["URIs"].split()[0]
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        if path.is_file():
            pattern = rf"^deb(?:\s+\[[^]]*\])?\s+(https?://\S+)\s+{codename.group(1)}\s+(?:\S+\s+)*?main\b"
            found = re.search(pattern, path.read_text(encoding="utf-8"), re.M)
            if found:
                return found.group(1)
    return ""


def inputs_hash(context: Path, args: dict[str, str], base: str) -> str:
    """SHA-256 over the Dockerfile's folder, its arguments and the base's recipe; not over mirrors or CAs."""
    digest = hashlib.sha256(base.encode())
    # What Python leaves beside a file it has read is no input.
    for path in sorted(p for p in context.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(str(path.relative_to(context)).encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(json.dumps(args, sort_keys=True).encode())
    return digest.hexdigest()
