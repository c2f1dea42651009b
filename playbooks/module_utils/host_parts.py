"""What programs and files of a host say -> plain data. Pure: texts in, dicts and lists out; never an exception."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any


def os_release(text: str) -> dict:
    """Return id, like (ids of the family), version and name of /etc/os-release; empty texts where it is silent."""
    found = dict(re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?\s*$", text, re.M))
    return {
        "id": found.get("ID", ""),
        "like": found.get("ID_LIKE", "").split(),
        "version": found.get("VERSION_ID", ""),
        "name": found.get("PRETTY_NAME", ""),
    }


def secure_boot(mokutil: str, variable: bytes, efi: bool) -> str:
    """Return enabled, disabled, or unsupported (no UEFI); empty when nobody says it.

    mokutil: output of `mokutil --sb-state`. variable: content of the SecureBoot variable, four bytes of attributes and
    one of value. efi: whether the machine was started by UEFI.
    """
    found = re.search(r"SecureBoot (enabled|disabled)", mokutil)
    # The firmware checks, and shim lets everything through behind it: the kernel takes modules that nobody has signed.
    if "validation is disabled in shim" in mokutil:
        return "disabled"
    if found:
        return found.group(1)
    if len(variable) >= 5:
        return "enabled" if variable[4] else "disabled"
    return "" if efi else "unsupported"


def apt_updates(dump: str) -> dict:
    """Return how `apt-config dump` sets unattended upgrades: enabled (bool) and blacklist (list of patterns)."""
    enabled = re.search(r'^APT::Periodic::Unattended-Upgrade "(.*)";', dump, re.M)
    return {
        "enabled": bool(enabled) and enabled.group(1) not in ("", "0", "false", "no"),
        "blacklist": re.findall(r'^Unattended-Upgrade::Package-Blacklist::[^ ]* "(.+)";', dump, re.M),
    }


def boot_key(release: str) -> str:
    """Return where the key lies with which DKMS signs what it builds; release: text of /etc/os-release."""
    shim = os_release(release)["id"] == "ubuntu"
    return "/var/lib/shim-signed/mok/MOK.der" if shim else "/var/lib/dkms/mok.pub"


def key_enrolled(told: str) -> bool:
    """Return whether `mokutil --test-key` finds the key where the kernel takes it from; told: both of its streams."""
    return bool(re.search(r"is already (enrolled|in db|in the built-in trusted keyring)\s*$", told, re.M))


def dnf_locks(text: str) -> list:
    """Return the package patterns of a versionlock file, of dnf 4 (a line each) or dnf 5 (TOML)."""
    toml = re.findall(r'^name\s*=\s*"(.+?)"', text, re.M)
    plain = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return toml or ([] if re.search(r"^\[\[", text, re.M) else plain)


def dnf_held(text: str) -> list:
    """Return the packages of a versionlock file: an entry is name-epoch:version-release.*, or a name alone."""
    return [re.sub(r"-(\d+:)?\d[^-]*-[^-]*$", "", lock) for lock in dnf_locks(text)]


def packages(text: str) -> dict:
    """Return {name: version} of lines `name version state`; what is removed and only left its configuration is not."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and (len(words) < 3 or words[2][1:2] == "i"):
            found[words[0]] = words[1]
    return found


def held(text: str) -> list:
    """Return the names among such lines that dpkg holds (`hi`)."""
    return [words[0] for words in map(str.split, text.splitlines()) if len(words) > 2 and words[2].startswith("h")]


def docker_info(text: str) -> dict:
    """Return what `docker info --format json` says of the engine; `answers` is False where it said nothing usable."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.get("ServerVersion"):
        errors = found.get("ServerErrors") if isinstance(found, dict) else None
        return {"answers": False, "why": "; ".join(map(str, errors or []))}
    return {
        "answers": True,
        "version": str(found["ServerVersion"]),
        "storage_driver": str(found.get("Driver", "")),
        "cgroup_driver": str(found.get("CgroupDriver", "")),
        "cgroup_version": str(found.get("CgroupVersion", "")),
        "live_restore": bool(found.get("LiveRestoreEnabled")),
        "root": str(found.get("DockerRootDir", "")),
        "cdi": bool(found.get("CDISpecDirs")),
        "ways": _ways(found),
    }


def _ways(info: dict) -> list:
    """Return the mirrors and proxies through which the engine itself pulls; a proxy's password is left out."""
    config = info.get("RegistryConfig") or {}
    proxies = [str(info.get(name) or "") for name in ("HttpProxy", "HttpsProxy")]
    ways = [*(config.get("Mirrors") or []), *(re.sub(r"//[^/@]*@", "//", proxy) for proxy in proxies if proxy)]
    return list(dict.fromkeys(map(str, ways)))


def cdi_devices(listed: str) -> list:
    """Return the names in the output of `nvidia-ctk cdi list`, such as nvidia.com/gpu=0."""
    return re.findall(r"^(\S+/\S+=\S+)\s*$", listed, re.M)


def cdi_spec(text: str) -> list:
    """Return the device names of one specification file, JSON or YAML; empty when it is neither."""
    try:
        found = json.loads(text)
        kind, names = str(found["kind"]), [str(device["name"]) for device in found["devices"]]
    except (ValueError, KeyError, TypeError):
        kinds = re.findall(r"^kind:\s*[\"']?([^\"'\s]+)", text, re.M)
        section = re.search(r"^devices:\s*\n((?:[ \t-].*\n?|\s*\n)*)", text, re.M)
        if not kinds or not section:
            return []
        kind = kinds[0]
        # A device's own name stands at the depth of its list entry; deeper ones belong to hooks and nodes.
        entries = re.findall(r"^(\s*)(- )?name:\s*[\"']?([^\"'\s]+)", section.group(1), re.M)
        depths = [len(blank) + len(dash) for blank, dash, _name in entries]
        names = [entry[2] for entry, depth in zip(entries, depths) if depth == min(depths)]  # noqa: B905 - Python 3.9
    return [f"{kind}={name}" for name in names]


def gpu_uuids(listed: str) -> list:
    """Return the UUIDs of `nvidia-smi -L`, those of MIG devices left out."""
    return re.findall(r"^GPU \d+:.*\(UUID: (GPU-[^)\s]+)\)", listed, re.M)


def listeners(table: str) -> list:
    """Return [{address, port, inode}] of the listening sockets in /proc/net/tcp or tcp6."""
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or words[3] != "0A":
            continue
        try:
            raw, port = words[1].split(":")
            found.append({"address": _address(raw), "port": int(port, 16), "inode": words[9]})
        except ValueError:
            continue
    return found


def _address(raw: str) -> str:
    # Words of 32 bits, each in the machine's order: little endian on what we support.
    words = [bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def container_of(cgroup: str) -> str:
    """Return the id of the container in which a process runs, of its /proc/PID/cgroup; empty when in none."""
    found = re.search(r"(?:/docker/|docker-)([0-9a-f]{64})", cgroup)
    return found.group(1) if found else ""


def containers(inspected: str) -> list:
    """Return [{id, name, site, image, ports: [port on the host]}] of the output of `docker inspect`."""
    try:
        listed = json.loads(inspected or "[]")
    except ValueError:
        return []
    return [_container(entry) for entry in listed if isinstance(entry, dict)]


def _container(entry: dict) -> dict:
    config: dict = entry.get("Config") or {}
    bound: dict[str, Any] = (entry.get("NetworkSettings") or {}).get("Ports") or {}
    hosts = [binding.get("HostPort", "") for bindings in bound.values() for binding in bindings or []]
    return {
        "id": str(entry.get("Id", "")),
        "name": str(entry.get("Name", "")).lstrip("/"),
        "site": (config.get("Labels") or {}).get("deployctl.site", ""),
        "image": str(config.get("Image", "")),
        "ports": sorted({int(port) for port in hosts if str(port).isdigit()}),
    }


def memory(meminfo: str) -> dict:
    """Return total_gib and available_gib of /proc/meminfo; None where it is silent."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.M))
    names = {"total_gib": "MemTotal", "available_gib": "MemAvailable"}
    return {key: round(int(found[name]) / 2**20, 1) if name in found else None for key, name in names.items()}
