"""What files and programs of a host say of its hardware -> plain data. Pure: texts in, dicts and lists out."""

from __future__ import annotations

import json
import re

# File systems that hold data of this host; all others are the kernel's own, read-only images, or another host's.
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay")


def cpu(text: str) -> dict:
    """Return model, sockets, cores (of all sockets) and threads of /proc/cpuinfo; null where it is silent."""
    blocks = [dict(re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*)$", block, re.M)) for block in text.split("\n\n")]
    blocks = [block for block in blocks if "processor" in block]
    sockets = {block["physical id"] for block in blocks if "physical id" in block}
    cores = {(block["physical id"], block["core id"]) for block in blocks if {"physical id", "core id"} <= set(block)}
    return {
        "model": next((block["model name"] for block in blocks if block.get("model name")), ""),
        "sockets": len(sockets) or None,
        "cores": len(cores) or None,
        "threads": len(blocks) or None,
    }


def mounts(text: str) -> list:
    """Return [{path, device, number, kind, read_only}] of /proc/self/mountinfo, local file systems only.

    What is mounted several times (bind mounts) is told once, at its shortest path.
    """
    found: dict = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(), right.split()
        if len(words) < 6 or len(rest) < 2 or rest[0] not in LOCAL:
            continue
        if rest[0] == "overlay" and words[4] != "/":
            continue  # of a container
        entry = {
            "path": _unescaped(words[4]),
            "device": _unescaped(rest[1]),
            "number": words[2],
            "kind": rest[0],
            "read_only": "ro" in words[5].split(","),
        }
        key = (words[2], rest[1])
        if key not in found or len(entry["path"]) < len(found[key]["path"]):
            found[key] = entry
    return sorted(found.values(), key=lambda entry: entry["path"])


def _unescaped(text: str) -> str:
    """Undo the octal escapes with which the kernel writes blanks."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def addresses(text: str) -> dict:
    """Return {interface: [address]} of `ip -j addr show`, addresses of global scope only; empty for any other text."""
    found = {}
    for link in _listed(text):
        told = [one for one in link.get("addr_info") or [] if isinstance(one, dict) and one.get("scope") == "global"]
        lasting = [one for one in told if not one.get("temporary") and not one.get("deprecated")]
        found[str(link.get("ifname"))] = [str(one["local"]) for one in lasting if one.get("local")]
    return found


def default_interface(text: str) -> str:
    """Return the interface of the best default route in `ip -j route show default`; empty when there is none."""
    routes = [route for route in _listed(text) if route.get("dev")]
    best = min(routes, key=lambda route: route.get("metric") or 0, default=None)
    return str(best["dev"]) if best else ""


def default_of_table(text: str) -> str:
    """Return the interface of the best default route in /proc/net/route, for hosts without `ip`."""
    rows = [line.split() for line in text.splitlines()[1:]]
    routes = [row for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"]
    best = min(routes, key=lambda row: int(row[6]), default=None)
    return best[0] if best else ""


def _listed(text: str) -> list:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
