"""Takes a host for this run: refused when another run, from this machine or another, works on it.

Arguments: `state` (free, taken, released: see the module site_lock) and `run` (name of the run's folder). A run of this
machine that has died is no obstacle. Environment: DEPLOYCTL_TAKE_OVER=1 takes the host whoever has it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

from deploy_cli import lock


class ActionModule(ActionBase):  # type: ignore[misc]
    """Asks the host, and judges on the control node whether who has it still lives."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return `holder`, None when the host is free or ours; failed with `problems` when it is somebody else's."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        owner = lock.owner(
            str(self._task.args["run"]), Path((context.CLIARGS.get("args") or ["up"])[-1]).stem, os.getppid()
        )
        asked = {"state": self._task.args["state"], "owner": owner}
        answer = self._execute_module("site_lock", asked, task_vars=task_vars)
        held = answer.get("holder")
        if held and (os.environ.get("DEPLOYCTL_TAKE_OVER") == "1" or lock.has_died(held)):
            answer = self._execute_module("site_lock", {**asked, "instead_of": held["run"]}, task_vars=task_vars)
            held = answer.get("holder")
        if not held and not answer.get("failed"):
            # Who has failed is not asked to release its host here; deployctl does so once more then.
            whole = task_vars["ansible_play_hosts"] == task_vars["ansible_play_hosts_all"]
            _remember(asked["state"], whole=whole)
        if not held or asked["state"] == "released" or answer.get("failed"):
            return {**result, **answer}
        host = task_vars["inventory_hostname"]
        problem = {
            "where": host,
            "what": f"another run works on this host: {held.get('who')} runs `{held.get('command')}` since "
            f"{held.get('since')}",
            "hint": "wait for it to end. If its machine is gone: --take-over, or wait until "
            + time.strftime("%H:%M UTC", time.gmtime(time.time() + held.get("left", 0))),
            "severity": "error",
        }
        return {**result, "failed": True, "msg": f"{problem['what']}. Hint: {problem['hint']}", "problems": [problem]}


def _remember(state: str, *, whole: bool) -> None:
    """Leave word for whoever ends this run: deployctl, which knows by it whether there is something to release."""
    folder = os.environ.get("DEPLOYCTL_RUN_DIR")
    if folder and state == "taken":
        (Path(folder) / lock.TAKEN).touch()
    elif folder and state == "released" and whole:
        (Path(folder) / lock.TAKEN).unlink(missing_ok=True)
