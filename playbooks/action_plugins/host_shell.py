"""Runs a shell command on the host, as ansible.builtin.raw does; a host that cannot be reached is failed and `away`.

Ansible itself takes such a host out of the run at once, and no rescue can put right what was begun for it elsewhere.
Argument: `command`. Result: `rc`, `stdout` and `stderr`.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Nothing is sent to the host but the command: a module would take longer to begin."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            done = self._low_level_execute_command(str(self._task.args["command"]))
        except AnsibleConnectionFailure as error:
            return {**result, "failed": True, "away": True, "msg": f"the host cannot be reached any more: {error}"}
        told = {name: done[name] for name in ("rc", "stdout", "stderr")}
        failed = {"failed": True, "msg": (done["stderr"] or done["stdout"])[-2000:]} if done["rc"] else {}
        return {**result, **told, "changed": True, **failed}
