"""Ansible's door to the plan: collects what Ansible knows, asks deploy_cli.plan, writes plan.json to the run folder.

Result: `plan`, `run_dir` (absolute) and `inputs` (a digest of all that decides what the site should be), never
changed; or failed with `msg` (all problems, readable) and `problems`.
The run folder is $DEPLOYCTL_RUN_DIR, else a new runs/<time>-<playbook>/. Argument `current`, optional:
{instance: {host, devices, port}} of what runs now; the plan keeps it in place where it can. Argument `gpus`, optional:
{host: what gpu_facts read}; devices then are the real ones, by UUID, and what differs from the inventory is a problem.
Argument `whole`, false for `down`: the plan is the site's name alone, and only that its groups are there is checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

from deploy_cli import paths, states
from deploy_cli.errors import render_problems
from deploy_cli.inputs import content_digest, inputs_digest
from deploy_cli.plan import collect, make_plan, unnamed
from deploy_cli.plan.shapes import GROUPS, SiteInput

ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Plan the site of the inventory in use."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("current", "gpus", "whole"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Collect, plan, write. Problems of the inventory are a failed result, never an exception."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        made = (task_vars or {}).get("site_plan", {})
        if "plan" in made and not self._task.args:
            # A playbook that imports another plans once: what ran in between adds variables that are not the user's.
            return result | {"changed": False, **{key: made[key] for key in ("plan", "run_dir", "inputs")}}
        given = {name: self._task.args.get(name) for name in ("current", "gpus")}
        known = collect.from_ansible(task_vars, self._loader, ROLES, **given)
        if not self._task.args.get("whole", True) and not unnamed(known):
            return result | {"changed": False, "plan": {"site": known.site}, "run_dir": str(_run_dir(task_vars))}
        outcome = make_plan(known)
        if isinstance(outcome, list):
            found = [p.as_dict() for p in outcome]
            return result | {"failed": True, "msg": render_problems(outcome, known.inventory), "problems": found}
        for warning in outcome.warnings:
            self._display.warning(f"{warning.where}: {warning.what}. Hint: {warning.hint}")
        data, run_dir = outcome.as_dict(), _run_dir(task_vars)
        # Only its owner may read it: a plan holds what the user put into `env`.
        paths.write_private(run_dir / "plan.json", json.dumps(data, indent=2) + "\n")
        if not made:
            paths.write_private(run_dir / "settings.json", json.dumps(_settings(known)) + "\n")
        # The first plan's: tasks that ran since have added variables of their own.
        inputs = made.get("inputs") or inputs_digest(known, outcome, content_digest(ROLES.parent))
        return result | {"changed": False, "plan": data, "run_dir": str(run_dir), "inputs": inputs}


def _run_dir(task_vars: Any) -> Path:
    """The run folder: the same for every plan of a run; a rollback has made it before it plans."""
    earlier = [(task_vars.get(name) or {}).get("run_dir") for name in ("site_rollback", "site_plan")]
    chosen = next((folder for folder in earlier if folder), None)
    playbooks = context.CLIARGS.get("args") or ["plan"]
    return Path(chosen) if chosen else paths.given_run_dir(Path(playbooks[-1]).stem)


def _settings(known: SiteInput) -> dict[str, Any]:
    """What the inventory says, without secrets: what a state keeps once the site was judged."""
    secrets = states.secret_names(known.specs)
    keys = {host: known.setting(host, "haproxy_api_keys") for host in known.groups.get("gateway", ())}
    return {
        "hosts": {host: states.keep(values, secrets) for host, values in known.hosts.items()},
        "groups": {name: list(known.groups.get(name, ())) for name in GROUPS},
        "keys": {host: [str(key["id"]) for key in given or []] for host, given in keys.items()},
    }
