#!/usr/bin/python
"""Look at what stands around an NVIDIA driver: packages, holds, modules on disk, DKMS, headers, Secure Boot."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils import host_parts as parts
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: nvidia_driver_state
short_description: What stands around an NVIDIA driver on a host
description:
  - Reads packages and their holds, the module on disk for the running kernel, DKMS and its logs, the kernel's headers,
    Secure Boot, and NVSwitches on the bus. What runs is read by M(gpu_facts).
  - Changes nothing and never fails for what it finds.
options:
  record:
    description: File in which deployctl remembers the packages that it holds.
    type: path
    required: true
author:
  - deployctl
"""

EFI = Path("/sys/firmware/efi")
# The driver's packages in every distribution; the container toolkit has a role of its own.
NAMES = [
    "nvidia-*",
    "libnvidia-*",
    "cuda-drivers*",
    "libcuda1*",
    "kmod-nvidia*",
    "linux-modules-nvidia-*",
    "dkms-nvidia*",
]
OTHERS = re.compile(r"(lib)?nvidia-container")
# Debian names the file after its own package, nvidia-current.ko; its parts (-modeset, -uvm, ...) are no drivers.
MODULE = re.compile(r"nvidia(-current|-tesla|-legacy)?(-\d+)?(-open)?\.ko(\.(xz|zst|gz))?$")
LICENCES = {"NVIDIA": False, "Dual MIT/GPL": True}  # of the proprietary and of the open modules


def said(*words: str) -> str:
    """Both streams of a program; empty where it is not there."""
    env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def text(path: str | Path) -> str:
    """A file; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def packages() -> dict:
    """The driver's packages: {packages, unfinished, held, updates}."""
    if shutil.which("dpkg-query"):
        form = "${Package} ${Version} ${db:Status-Abbrev}\n"
        listed = said("dpkg-query", "--show", f"--showformat={form}", *NAMES)
        lines = [line for line in listed.splitlines() if len(line.split()) == 3 and not OTHERS.match(line)]
        unfinished = [line.split()[0] for line in lines if line.split()[2][1:2] in ("U", "F", "H", "W", "t")]
        listed = "\n".join(lines)
        updates = parts.apt_updates(said("apt-config", "dump"))
        return {
            "packages": parts.packages(listed),
            "unfinished": unfinished,
            "held": parts.held(listed),
            "updates": updates["blacklist"],
        }
    listed = said("rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", *NAMES)
    files = ("/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml")
    held = [name for file in files for name in parts.dnf_held(text(file))]
    lines = [line for line in listed.splitlines() if not OTHERS.match(line)]
    return {"packages": parts.packages("\n".join(lines)), "unfinished": [], "held": held, "updates": []}


def modules(kernel: str) -> Iterator[str]:
    """The driver's modules on disk as modinfo takes them: the one that modprobe finds, then files of other names."""
    yield "nvidia"
    for folder, _below, files in os.walk(f"/lib/modules/{kernel}"):
        yield from (f"{folder}/{name}" for name in sorted(files) if MODULE.match(name))


def module_on_disk(kernel: str) -> str | None:
    """Version of the module that the running kernel would load; None where none is built for it."""
    for module in modules(kernel):
        told = said("modinfo", "--field", "version", module).strip()
        if re.match(r"^\d+\.\d+(\.\d+)?$", told):
            return told
    return None


def opened(kernel: str) -> bool | None:
    """Whether the module on disk is the open one, by its licence; None where that is not known."""
    kinds = set()
    for module in modules(kernel):
        kind = LICENCES.get(said("modinfo", "--field", "license", module).strip())
        if kind is not None and module == "nvidia":
            return kind
        kinds.add(kind)
    # Debian has it under names of its own; with both kinds there, modprobe.d decides.
    kinds.discard(None)
    return kinds.pop() if len(kinds) == 1 else None


def dkms(kernel: str) -> list:
    """What DKMS has for this kernel, or for none yet: [{module, version, kernel, state, log}]."""
    found = []
    for line in said("dkms", "status").splitlines():
        # nvidia/580.95.05, 6.1.0-25-amd64, x86_64: installed   or   nvidia/580.95.05: added
        told = re.match(r"(?P<module>nvidia[\w.-]*)[/,]\s*(?P<version>[\w.+-]+)(?P<rest>[^:]*):\s*(?P<state>\w+)", line)
        if not told:
            continue
        words = [word.strip() for word in told["rest"].split(",") if word.strip()]
        entry = {"module": told["module"], "version": told["version"], "kernel": words[0] if words else ""}
        if entry["kernel"] not in ("", kernel):
            continue
        folder = Path("/var/lib/dkms") / entry["module"] / entry["version"]
        logs = [folder / "build/make.log", *folder.glob(f"{kernel}/*/log/make.log")]
        log = next((str(file) for file in logs if file.is_file()), "")
        found.append({**entry, "state": told["state"], "log": log})
    return found


def key_enrolled() -> bool:
    """Whether the firmware knows a key that modules built here are signed with."""
    key = parts.boot_key(text("/etc/os-release"))
    return Path(key).is_file() and parts.key_enrolled(said("mokutil", "--test-key", key))


def nvswitch() -> bool:
    """Whether an NVSwitch is on the bus."""
    devices = Path("/sys/bus/pci/devices").glob("*")
    return any(text(d / "vendor") == "0x10de" and text(d / "class").startswith("0x0680") for d in devices)


def sources() -> list:
    """The distribution's own package sources: [{uri, suite}] of those that have `main`."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    found = []
    for line in said("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines():
        words = line.split()
        entry = {"uri": words[0], "suite": words[1]} if len(words) == 4 else {}
        if entry and words[2] == "main" and words[3] == "Debian" and entry not in found:
            found.append(entry)
    return found


def record(file: str) -> list:
    """Names of the packages that deployctl holds."""
    try:
        held = json.loads(text(file) or "{}").get("held")
    except (ValueError, AttributeError):
        held = None
    return held if isinstance(held, list) else []


def persistence() -> dict:
    """The daemon's unit: whether it is there, and the command that keeps the GPUs initialised (empty: it does so)."""
    told = said("systemctl", "cat", "nvidia-persistenced.service")
    commands = re.findall(r"^ExecStart=(\S.*)$", told, re.M)
    last = commands[-1] if commands else ""
    without = " ".join(word for word in last.split() if word != "--no-persistence-mode")
    return {"there": bool(commands), "command": without if without != last else ""}


def look(file: str) -> dict:
    """Everything."""
    kernel = platform.release()
    variables = sorted(EFI.glob("efivars/SecureBoot-*"))
    stream = re.search(r"^stream=(.+)$", text("/etc/dnf/modules.d/nvidia-driver.module"), re.M)
    initramfs = [name for name in ("update-initramfs", "dracut") if shutil.which(name)]
    return {
        **packages(),
        "kernel": kernel,
        "headers": Path(f"/lib/modules/{kernel}/build").exists(),
        "module": module_on_disk(kernel),
        "open": opened(kernel),
        "dkms": dkms(kernel),
        "secure_boot": parts.secure_boot(
            said("mokutil", "--sb-state"), variables[0].read_bytes() if variables else b"", EFI.exists()
        ),
        "key_enrolled": key_enrolled(),
        "nvswitch": nvswitch(),
        "sources": sources() if shutil.which("apt-get") else [],
        "stream": stream.group(1).strip() if stream else "",
        "held_by_us": record(file),
        "persistence": persistence(),
        "initramfs": initramfs[0] if initramfs else "",
    }


def main() -> None:
    """Look, and tell under `state`."""
    module = AnsibleModule(argument_spec={"record": {"type": "path", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, found=look(module.params["record"]))


if __name__ == "__main__":
    main()
