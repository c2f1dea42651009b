"""Everything on a host that a run of `up` could change, read at once and reduced to short digests.

Sent to the host as it is, see action_plugins/site_look.py: the standard library only, Python 3.9 or newer.
Argument, one JSON text: `site` (its name, as the containers' label has it), `probe` (HAProxy's probe socket, empty on a
host that is no gateway) and `instances` to ask there (`name`, `model`). Prints one line of JSON.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

DOCKER = "/var/run/docker.sock"
# What the last accepted run wrote down; the second stays where a later run or acceptance made the first void.
RECORD, ACCEPTED = Path("/var/lib/deployctl/in-step.json"), Path("/var/lib/deployctl/accepted.json")
FILES = ("/etc/docker/daemon.json", "/etc/cdi/nvidia.yaml", "/sys/module/nvidia/version", "/proc/driver/nvidia/version")
PACKAGES = ("nvidia-*", "libnvidia-*", "libcuda1", "cuda-drivers*", "docker.io", "docker-ce")


def digest(data: Any) -> str:
    """Short digest of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def output(*argv: str) -> str:
    """What a program prints; empty when it is not there or fails."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        """Keep the path."""
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine(path: str) -> Any:
    """What Docker answers to a GET; None when it does not. A client program would be started anew for each question."""
    try:
        with contextlib.closing(SocketConnection(DOCKER)) as link:
            link.request("GET", path)
            answer = link.getresponse()
            told = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return told if answer.status == 200 else None


def tree(source: str) -> Any:
    """What lies under a path that is mounted read-only: small files by content, large ones by size and time."""
    root, found = Path(source), []
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []
    for path in files:
        status = path.stat()
        small = status.st_size <= 262144
        what = hashlib.sha256(path.read_bytes()).hexdigest() if small else str(status.st_mtime_ns)
        found.append([str(path.relative_to(root)), status.st_size, status.st_mode & 0o7777, what])
    return found


def containers(site: str) -> dict[str, str]:
    """Name -> digest of each container of the site: how it was made, what it became, what it reads."""
    filters = urllib.parse.quote(json.dumps({"label": [f"deployctl.site={site}"]}))
    found = {}
    for known in engine(f"/containers/json?all=1&filters={filters}") or []:
        one = engine(f"/containers/{known['Id']}/json")
        if one is None:
            continue  # it went meanwhile
        mounts = {m["Destination"]: tree(m["Source"]) for m in one["Mounts"] if m.get("Type") == "bind" and not m["RW"]}
        means = (engine(f"/images/{urllib.parse.quote(one['Config']['Image'])}/json") or {}).get("Id", "")
        parts = [one["Id"], one["Image"], means, one["Config"], one["HostConfig"], mounts]
        parts += [one["State"]["Running"], one["State"]["Paused"], sorted(one["NetworkSettings"]["Networks"])]
        found[one["Name"].lstrip("/")] = digest(parts)
    return found


def host() -> dict[str, str]:
    """The engine and the driver: what runs, what is installed and held, and how they are configured."""
    found = {path: digest(Path(path).read_text(errors="replace")) for path in FILES if Path(path).is_file()}
    found["engine"] = (engine("/version") or {}).get("Version", "")
    found["service"] = output("systemctl", "is-enabled", "docker").strip()
    found["packages"] = digest(output("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n", *PACKAGES))
    libraries = sorted(p.name for p in Path("/usr/lib").glob("*/libnvidia-ml.so.*"))
    found["libraries"] = digest(libraries)
    return found


def generates(probe: str, instance: dict[str, str]) -> str:
    """Ask one engine for one token; `ok`, else what happened."""
    body = json.dumps({"model": instance["model"], "prompt": "ready", "max_tokens": 1})
    try:
        link = SocketConnection(probe)
        link.request("POST", f"/probe/{instance['name']}/v1/completions", body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        told = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    by = answer.getheader("x-served-by", "")
    whole = answer.status == 200 and by == instance["name"] and (told.get("usage") or {}).get("completion_tokens")
    return "ok" if whole else f"HTTP {answer.status} by {by or 'nobody'}"


def recorded(file: Path) -> Any:
    """What an accepted run wrote down here; None when there is nothing."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def main() -> None:
    """Look, and tell."""
    given = json.loads(sys.argv[1])
    asked = given["instances"] if given["probe"] else []
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(16, len(asked)))) as pool:
        answers = {one["name"]: pool.submit(generates, given["probe"], one) for one in asked}
        look = {"containers": containers(given["site"]), "host": host(), "user": os.geteuid()}
        tokens = {name: answer.result() for name, answer in answers.items()}
    print(json.dumps({"look": look, "tokens": tokens, "recorded": recorded(RECORD), "accepted": recorded(ACCEPTED)}))


if __name__ == "__main__":
    main()
