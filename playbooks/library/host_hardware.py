#!/usr/bin/python
"""What a host is made of: processors, memory, disks and their mount points, network interfaces. Changes nothing."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import socket
import struct
import subprocess
from pathlib import Path

from ansible.module_utils import hardware_parts as parts
from ansible.module_utils import host_programs
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: host_hardware
short_description: What a host is made of
description:
  - Looks only, as the user that logs in; needs no rights.
  - Returns C(hardware) - name, machine, user, cpu, numa_nodes, memory_gib, mounts and interfaces. What cannot be read
    is C(null) or empty, and C(errors) says why, by part. Never fails for what it finds.
options:
  timeout:
    description: Seconds that each program may take.
    type: int
    default: 15
author:
  - deployctl
"""

BLOCK = Path("/sys/class/block")
NET = Path("/sys/class/net")
GIVE_ADDRESS = 0x8915  # SIOCGIFADDR: an interface's own IPv4 address
DEEPEST = 8  # layers of LVM, RAID and encryption between a file system and its drives


def read(path: Path | str) -> str:
    """Text of a file of the kernel; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""


def said(timeout: int, *words: str) -> str:
    """What a program wrote on stdout; empty where it is not there, hangs or failed."""
    env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        status, told = host_programs.ask(list(words), timeout, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told if status == 0 else ""


def drives(number: str) -> list:
    """The drives under a file system, by the number of its device: through partitions, LVM, RAID, encryption."""
    device = Path(f"/sys/dev/block/{number}")
    waiting, found = ([(device.resolve(), 0)] if device.exists() else []), {}
    while waiting:
        at, depth = waiting.pop()
        below = sorted((at / "slaves").glob("*")) if (at / "slaves").is_dir() else []
        if (at / "partition").exists():
            waiting.append((at.parent, depth))
        elif below and depth < DEEPEST:
            waiting += [(entry.resolve(), depth + 1) for entry in below]
        else:
            model = read(at / "device/model") or read(at / "device/name")
            found[at.name] = {
                "name": at.name,
                "model": " ".join(model.split()),
                "nvme": at.name.startswith("nvme"),
                "rotational": read(at / "queue/rotational") == "1",
            }
    return [found[name] for name in sorted(found)]


def mounts() -> list:
    """Local file systems with their free GiB and the drives under them."""
    found = []
    for mount in parts.mounts(read("/proc/self/mountinfo")):
        try:
            space = os.statvfs(mount["path"])
        except OSError:
            continue  # it went away meanwhile, or is not ours to see
        found.append({
            **mount,
            "free_gib": round(space.f_bavail * space.f_frsize / 2**30, 1),
            "total_gib": round(space.f_blocks * space.f_frsize / 2**30, 1),
            "drives": _drives_of(mount),
        })  # fmt: skip
    return found


def _drives_of(mount: dict) -> list:
    # btrfs counts its own device numbers; what was mounted is the name of a real device.
    named = BLOCK / Path(os.path.realpath(mount["device"])).name
    own = drives(mount["number"])
    return own or (drives(read(named / "dev")) if mount["device"].startswith("/dev/") and named.exists() else [])


def own_address(name: str) -> list:
    """The IPv4 address of an interface, asked of the kernel; for hosts without `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        try:
            told = fcntl.ioctl(door.fileno(), GIVE_ADDRESS, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return []
    return [socket.inet_ntoa(told[20:24])]


def interfaces(timeout: int) -> list:
    """Network interfaces but the loopback and containers' ones: speed in Mb/s, addresses, the default route."""
    known = parts.addresses(said(timeout, "ip", "-j", "addr", "show"))
    default = parts.default_interface(said(timeout, "ip", "-j", "route", "show", "default"))
    default = default or parts.default_of_table(read("/proc/net/route"))
    found = []
    for entry in sorted(NET.iterdir()):
        name, speed = entry.name, read(entry / "speed")
        if name == "lo" or re.match(r"(veth|docker|br-[0-9a-f]{12}|cni|virbr)", name):
            continue
        found.append({
            "name": name,
            "speed_mbit": int(speed) if re.fullmatch(r"[1-9]\d*", speed) else None,
            "up": read(entry / "operstate") in ("up", "unknown"),
            "real": (entry / "device").exists(),
            "addresses": known.get(name) or own_address(name),
            "default": name == default,
        })  # fmt: skip
    return found


def user() -> dict:
    """Who logs in, and whether it is root."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return {"name": name, "root": os.geteuid() == 0}


def memory() -> float | None:
    """Memory in GiB."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo"), re.M)
    return round(int(found.group(1)) / 2**20, 1) if found else None


def look(timeout: int) -> dict:
    """Every part by its name; one that breaks is named in `errors`."""
    asked = {
        "name": socket.gethostname,
        # Two names may lead to one machine: told apart by boot and installation together.
        "machine": lambda: (
            f"{read('/etc/machine-id')}/{read('/proc/sys/kernel/random/boot_id')}/{socket.gethostname()}"
        ),
        "user": user,
        "cpu": lambda: parts.cpu(read("/proc/cpuinfo")),
        "numa_nodes": lambda: len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "memory_gib": memory,
        "mounts": mounts,
        "interfaces": lambda: interfaces(timeout),
    }
    found: dict = dict.fromkeys(asked)
    errors = {}
    for name, part in asked.items():
        try:
            found[name] = part()
        except Exception as error:  # a part that breaks is told, never a traceback
            errors[name] = f"{type(error).__name__}: {error}"[:300]
    return {**found, "errors": errors}


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 15}}, supports_check_mode=True)
    module.exit_json(changed=False, hardware=look(module.params["timeout"]))


if __name__ == "__main__":
    main()
