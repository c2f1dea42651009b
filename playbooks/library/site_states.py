#!/usr/bin/python
"""States of the site that this host keeps: what it was whenever it was judged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: site_states
short_description: Keeps and reads the judged states of a site
description:
  - Each state is one file that only root reads. Reading also says which images the engine has, by id.
options:
  save:
    description: A state to keep; without it, all that are kept are read.
    type: dict
  keep:
    description: How many are kept; the newest accepted ones stay whatever their age.
    type: int
    default: 50
author:
  - deployctl
"""

FOLDER = Path("/var/lib/deployctl/states")
ACCEPTED_KEPT = 5


def read() -> list[dict[str, Any]]:
    """All states that can be read, newest first; what is damaged is left out."""
    found = []
    for file in FOLDER.glob("*.json"):
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(state, dict) and state.get("id") and isinstance(state.get("settings"), dict):
            found.append(state)
    return sorted(found, key=lambda state: (state.get("number", 0), str(state.get("at"))), reverse=True)


def save(state: dict[str, Any], keep: int) -> None:
    """Write one whole or not at all; drop the oldest.

    It gets the number after the highest here: which one is the last must not hang on the clock of who ran deployctl.
    """
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = [one for one in read() if one["id"] != state["id"]]
    state = {**state, "number": 1 + max((one.get("number", 0) for one in before), default=0)}
    part = FOLDER / f".{state['id']}.part"
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        json.dump(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(FOLDER / f"{state['id']}.json")
    kept = read()
    accepted = [s["id"] for s in kept if s.get("verdict") == "accepted"][:ACCEPTED_KEPT]
    for old in kept[keep:]:
        if old["id"] not in accepted:
            (FOLDER / f"{old['id']}.json").unlink(missing_ok=True)


def images() -> list[str]:
    """Ids of the images that the engine has; empty where no engine answers."""
    try:
        done = subprocess.run(
            ["docker", "image", "ls", "--quiet", "--no-trunc"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(set(done.stdout.split()))


def main() -> None:
    """Keep one, or read all."""
    module = AnsibleModule(
        argument_spec={"save": {"type": "dict"}, "keep": {"type": "int", "default": 50}}, supports_check_mode=True
    )
    state = module.params["save"]
    if not state:
        module.exit_json(changed=False, states=read(), images=images())
    if not module.check_mode:
        try:
            save(state, module.params["keep"])
        except OSError as error:
            module.fail_json(msg=f"the state cannot be kept in {FOLDER}: {error}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
