#!/usr/bin/python
"""Look at NVIDIA's container toolkit: packages, holds, its service, and the CDI devices that are declared."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils import host_parts as parts
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: nvidia_container_toolkit_state
short_description: NVIDIA's container toolkit on a host, and the CDI devices
description:
  - Reads versions and holds of the packages, whether the toolkit brings a service that declares the devices and whether
    that one comes before Docker, and which devices are declared for which driver. Changes nothing.
options:
  packages:
    description: Names of the packages.
    type: list
    elements: str
    required: true
author:
  - deployctl
"""

# The later folder wins where both name a device.
FOLDERS = ("/etc/cdi", "/var/run/cdi")
SERVICE = "nvidia-cdi-refresh.service"
# What waits for one of these cannot come before Docker.
LATER = {"multi-user.target", "graphical.target", "docker.service", "docker.socket", "containerd.service"}
STARTER = "deployctl-start-engines.service"


def said(*words: str) -> str:
    """Output of a program; empty where it is not there or failed."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 or words[0] == "dpkg-query" else ""


def packages(names: list) -> tuple:
    """({name: version or empty}, [held])."""
    if shutil.which("dpkg-query"):
        form = "${Package} ${Version} ${db:Status-Abbrev}\n"
        listed = said("dpkg-query", "--show", f"--showformat={form}", *names)
        found, held = parts.packages(listed), parts.held(listed)
    else:
        found = parts.packages(said("rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", *names))
        files = ("/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml")
        held = [name for file in files if Path(file).is_file() for name in parts.dnf_held(Path(file).read_text())]
    return {name: found.get(name, "") for name in names}, [name for name in names if name in held]


def declared() -> dict:
    """The devices of kind nvidia.com/gpu, and the versions of the driver whose files they bring into a container."""
    winners, texts = {}, {}
    for folder in FOLDERS:
        for file in sorted(Path(folder).glob("*")):
            if file.suffix not in (".yaml", ".yml", ".json") or not file.is_file():
                continue
            texts[str(file)] = file.read_text(encoding="utf-8", errors="replace")
            names = [name for name in parts.cdi_spec(texts[str(file)]) if name.startswith("nvidia.com/gpu=")]
            winners.update({name.split("=", 1)[1]: str(file) for name in names})
    files = sorted(set(winners.values()))
    drivers = {version for file in files for version in re.findall(r"libcuda\.so\.(\d+\.\d+(?:\.\d+)?)", texts[file])}
    return {"files": files, "devices": sorted(winners), "drivers": sorted(drivers)}


def order() -> dict:
    """Whether the service comes before Docker, and whether it can."""
    told = said("systemctl", "show", "--property=Before,After", SERVICE)
    words = {name: value.split() for name, value in re.findall(r"^(\w+)=(.*)$", told, re.M)}
    return {
        "first": "docker.service" in words.get("Before", []),
        "may_be_first": not LATER & set(words.get("After", [])),
    }


def main() -> None:
    """Look, and tell under `found`."""
    module = AnsibleModule(
        argument_spec={"packages": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    found, held = packages(module.params["packages"])
    service = SERVICE in said("systemctl", "list-unit-files", "--no-legend", SERVICE)
    found = {
        "packages": found,
        "held": held,
        "service": service,
        "cdi": declared(),
        "systemd": Path("/run/systemd/system").is_dir(),
        "starter": said("systemctl", "is-enabled", STARTER).strip() == "enabled",
        **order(),
    }
    module.exit_json(changed=False, found=found)


if __name__ == "__main__":
    main()
