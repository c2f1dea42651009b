#!/usr/bin/python
"""Which instances of a site run on this host, on which devices and port, as their containers' labels say."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: site_engines
short_description: The site's instances that a host has, for the planner
description:
  - A host without Docker, or whose engine does not answer, has none.
options:
  site:
    description: Name of the site.
    type: str
    required: true
  host:
    description: Name of this host in the inventory.
    type: str
    required: true
author:
  - deployctl
"""


def containers(site: str) -> list[dict[str, Any]]:
    """The site's engines, with their labels."""
    labels = ["--filter", f"label=deployctl.site={site}", "--filter", "label=deployctl.role=vllm"]
    try:
        names = subprocess.run(
            ["docker", "ps", "--all", "--quiet", *labels], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        ).stdout.split()
        told = (
            subprocess.run(["docker", "inspect", *names], stdout=subprocess.PIPE, check=True).stdout if names else "[]"
        )
        found: list[dict[str, Any]] = json.loads(told)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return []
    return found


def placed(container: dict[str, Any], host: str) -> dict[str, Any]:
    """Place of one instance: UUIDs of its GPUs or indices of its devices, and where it listens."""
    labels = container["Config"]["Labels"]
    devices = [d for d in labels.get("deployctl.devices", "").split(",") if d]
    plain = [int(found.group(1)) if (found := re.fullmatch(r"(?:cpu|nvidia)(\d+)", d)) else d for d in devices]
    address, _, port = labels.get("deployctl.address", "").rpartition(":")
    where = {"address": address.strip("[]"), "port": int(port) if port.isdigit() else None}
    return {"host": host, "devices": plain, **where}


def listed(container: dict[str, Any]) -> dict[str, Any]:
    """What Docker's list says of a container, as the role vllm reads it."""
    config, state = container["Config"], container["State"]
    return {
        "Id": container["Id"],
        "Names": [container["Name"]],
        "Labels": config["Labels"],
        "State": state["Status"],
    }


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(
        argument_spec={"site": {"type": "str", "required": True}, "host": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    there = containers(module.params["site"])
    found = {
        one["Config"]["Labels"]["deployctl.instance"]: placed(one, module.params["host"])
        for one in there
        if not one["Name"].endswith("-previous") and "deployctl.instance" in one["Config"]["Labels"]
    }
    module.exit_json(changed=False, instances=found, containers=[listed(one) for one in there])


if __name__ == "__main__":
    main()
