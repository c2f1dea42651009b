"""Refuse a bundle that does not hold what this host needs; thin, see deploy_cli/bundle/manifest.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.bundle import manifest as contents
from deploy_cli.errors import Problem, render_problems


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node, once for each host."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem of the bundle (told for the play's first host) and of this host; else no change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(
            argument_spec={"opened": {"type": "dict", "required": True}, "needs": {"type": "dict", "required": True}}
        )
        variables = task_vars or {}
        host, opened = str(variables["inventory_hostname"]), arguments["opened"]
        first = host == variables["ansible_play_hosts"][0]
        problems = [Problem(**problem) for problem in opened["problems"]] if first else []
        if opened["manifest"]:
            problems += contents.lacks(opened["manifest"], host, arguments["needs"])
        if not problems:
            # A bundle that is refused is the first host's failure; any_errors_fatal stops the others.
            return {**result, "changed": False}
        found = [problem.as_dict() for problem in problems]
        return {**result, "failed": True, "msg": render_problems(problems, opened["file"]), "problems": found}
