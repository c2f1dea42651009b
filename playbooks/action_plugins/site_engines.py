"""Asks a host which of the site's instances it has: the module of the same name.

A host that is asked on behalf of another one (delegate_to) and is not reached has none, and is `away`: Ansible would
take the other one for lost, and end the run.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Nothing is changed by a look."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the module's answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return {**result, "away": False, **self._execute_module(task_vars=task_vars)}
        except AnsibleConnectionFailure:
            if not self._task.delegate_to:
                raise
            return {**result, "changed": False, "away": True, "instances": {}, "containers": []}
