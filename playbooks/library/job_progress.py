#!/usr/bin/python
"""Say how far a background job of this host is, and hand on its result when it has ended."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: job_progress
short_description: Progress and result of an asynchronous task
description:
  - Reads the progress file that a long task of ours keeps, and the result that Ansible's C(async) wrote for it.
  - Meant for C(until=result.finished); each retry then carries the line that says what the task waits for.
options:
  job:
    description: The C(ansible_job_id) of the task.
    type: str
    required: true
  progress_file:
    description: JSON file of the task with a C(progress) text.
    type: path
    required: true
author:
  - deployctl
"""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty while the file is absent or half written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def said(progress: Path, job: Path) -> dict[str, Any]:
    """What the job says of itself; empty while the file is still that of an earlier job, whose process is long gone."""
    try:
        # The job's own file is made before it begins, and not written again before it ends.
        if progress.stat().st_mtime_ns < job.stat().st_mtime_ns:
            return {}
    except OSError:
        pass  # one of them is not there: nothing to compare
    return read_json(progress)


def alive(pid: Any) -> bool:
    """Whether a process of that number exists; unknown counts as alive."""
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended(result: dict[str, Any]) -> bool:
    """Whether this is the module's result; until then Ansible keeps a note with `started` there."""
    return bool(result) and ("started" not in result or bool(result.get("finished")))


def main() -> None:
    """Report `finished`, `progress`, and the job's own result once it is there."""
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "str", "required": True},
            "progress_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    folder = os.environ.get("ANSIBLE_ASYNC_DIR", "~/.ansible_async")
    job = Path(folder).expanduser() / module.params["job"]
    result = read_json(job)
    state = said(Path(module.params["progress_file"]), job)
    progress = str(state.get("progress", "starting"))
    if not ended(result) and state.get("pid") and not alive(state["pid"]):
        # It may have written its result between the two looks.
        time.sleep(1)
        result = read_json(job)
        if not ended(result):
            module.fail_json(
                msg=f"the job ended without a result; last seen: {progress}", finished=True, progress=progress
            )
    if not ended(result):
        module.exit_json(changed=False, finished=False, progress=progress)
    if result.get("failed"):
        module.fail_json(msg=str(result.get("msg", result.get("stderr", "failed"))), finished=True, progress=progress)
    known = ("ansible_job_id", "started", "finished", "results_file", "invocation", "changed", "failed")
    module.exit_json(
        changed=False, finished=True, progress=progress, result={k: v for k, v in result.items() if k not in known}
    )


if __name__ == "__main__":
    main()
