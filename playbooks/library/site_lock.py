#!/usr/bin/python
"""One changing run at a time on a host, whichever machine it is run from."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: site_lock
short_description: Marks a host as being worked on by one run
description:
  - The mark is a file that names the run. A run that has the mark renews it; another one is told who has it.
  - A mark that was not renewed for C(lease_seconds) counts for nothing, so that a machine that is gone for good does
    not lock the host for ever.
options:
  state:
    description: C(free) only looks, C(taken) takes or renews, C(released) takes the mark away if it is this run's.
    choices: [free, taken, released]
    required: true
    type: str
  owner:
    description: Who asks (C(run), C(who), C(command), C(control), C(pid), C(born), C(since)).
    type: dict
    required: true
  instead_of:
    description: Run whose mark may be taken over, because it is known to have ended.
    type: str
    default: ""
  lease_seconds:
    description:
      - How long a mark counts after it was last renewed, which happens between the parts of a change.
      - The longest part is one host whose engines are replaced one after another, or a large model that is fetched.
    type: int
    default: 14400
author:
  - deployctl
"""

MARK = Path("/var/lib/deployctl/operator.json")


def holder(lease: int) -> dict[str, Any] | None:
    """Who has the mark; None where nobody has, or it is too old."""
    try:
        age = time.time() - MARK.stat().st_mtime
        found = json.loads(MARK.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A clock that was set back must not make a mark last longer than its lease.
    return {**found, "left": int(lease - abs(age))} if isinstance(found, dict) and abs(age) < lease else None


def take(owner: dict[str, Any], lease: int, instead_of: str) -> dict[str, Any] | None:
    """Take or renew the mark; return who has it instead, None when it is ours."""
    found = holder(lease)
    if found and found.get("run") not in (owner["run"], instead_of):
        return found
    if found is None or found.get("run") != owner["run"]:
        MARK.write_text(json.dumps(owner), encoding="utf-8")
        MARK.chmod(0o600)
    os.utime(MARK)
    return None


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block nobody else on this host looks at the mark or changes it."""
    MARK.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with MARK.with_suffix(".lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Look, take or release."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["free", "taken", "released"], "required": True},
            "owner": {"type": "dict", "required": True},
            "instead_of": {"type": "str", "default": ""},
            "lease_seconds": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    given = module.params
    owner, lease, other = given["owner"], given["lease_seconds"], given["instead_of"]
    try:
        if given["state"] == "taken" and not module.check_mode:
            with alone():
                found = take(owner, lease, other)
            module.exit_json(changed=False, holder=found)
        found = holder(lease)
        ours = found is not None and found.get("run") == owner["run"]
        if given["state"] == "released" and ours and not module.check_mode:
            with alone():
                MARK.unlink(missing_ok=True)
    except OSError as error:
        module.fail_json(msg=f"the mark of this run cannot be kept in {MARK}: {error}")
    module.exit_json(changed=False, holder=None if ours or (found and found.get("run") == other) else found)


if __name__ == "__main__":
    main()
