"""What the site needs of the host at hand, out of its plan and the roles' variables; see deploy_cli/doctor/needs.py.

Read beside the roles, as the planner does: a play knows only the variables of the roles it runs, and this comes first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import Templar

from deploy_cli.doctor.needs import LIMITS, READ, needs
from deploy_cli.plan.collect import plain, read_roles

ROLES = Path(__file__).resolve().parents[2] / "roles"
OWN = ("host_checks_needs",)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node, with the host's variables."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what is needed under `needs`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec={"plan": {"type": "dict", "required": True}})
        known = task_vars or {}
        _specs, defaults = read_roles(ROLES, self._loader)
        scope = {**defaults, **known}
        templar = Templar(loader=self._loader, variables=scope)
        names = [*READ, *(name for name in defaults if name.startswith(LIMITS) and name not in OWN)]
        values = {name: plain(templar.template(scope[name])) for name in names}
        bundled = bool(os.environ.get("DEPLOYCTL_BUNDLE"))
        found = needs(arguments["plan"], known["inventory_hostname"], values, bundled=bundled)
        return {**result, "changed": False, "needs": found}
