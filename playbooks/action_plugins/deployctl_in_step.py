"""Says whether there is anything to do: do inputs and hosts look as they did when the site was last accepted?

Argument: `inputs` (the plan's digest). Each host of the site has what site_look returned as `site_looked`;
a host that a limit left out has not, and is not in step.
Result: `in_step`, `since` (when it was accepted, ISO 8601), `run` (that run's folder) and `why` (what is not in step).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli import paths
from deploy_cli.plan.shapes import GROUPS


class ActionModule(ActionBase):  # type: ignore[misc]
    """Compares on the control node; in step, it leaves in_step.json in the run folder."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Compare, and tell."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        groups, hostvars = (task_vars or {})["groups"], (task_vars or {})["hostvars"]
        hosts = list(dict.fromkeys(host for group in GROUPS for host in groups.get(group, ())))
        looks = {host: hostvars[host].get("site_looked") or {} for host in hosts}
        inputs = str(self._task.args["inputs"])
        why = [reason for host, look in looks.items() for reason in differs(host, look, inputs)]
        records = [look["recorded"] for look in looks.values() if look.get("recorded")]
        since, run = (records[0]["since"], records[0]["run"]) if records else ("", "")
        if not why and os.environ.get("DEPLOYCTL_RUN_DIR"):
            text = json.dumps({"since": since, "run": run, "hosts": hosts}, indent=1)
            paths.write_private(Path(os.environ["DEPLOYCTL_RUN_DIR"]) / "in_step.json", text + "\n")
        return {**result, "changed": False, "in_step": not why, "since": since, "run": run, "why": why}


def differs(host: str, look: dict[str, Any], inputs: str) -> list[str]:
    """What of one host is not as it was recorded."""
    if "look" not in look:
        return [f"{host}: was not looked at"]
    recorded = look.get("recorded")
    if not recorded:
        return [f"{host}: no accepted run is recorded there"]
    if recorded.get("inputs") != inputs:
        return [f"{host}: inventory or deployctl have changed since {recorded.get('since')}"]
    why = [f"{host}: {name} makes no token: {told}" for name, told in look["tokens"].items() if told != "ok"]
    for part, now in look["look"].items():
        before = recorded["look"].get(part)
        if now == before:
            continue
        both = sorted(set(now) | set(before)) if isinstance(now, dict) and isinstance(before, dict) else []
        why += [f"{host}: {name} has changed" for name in both if now.get(name) != before.get(name)] or [
            f"{host}: {part} has changed"
        ]
    return why
