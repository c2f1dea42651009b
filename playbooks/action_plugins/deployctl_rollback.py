"""Chooses the state that a rollback returns to, and writes each host's variables as they were then.

Result: `state` (id), `images` ({host: [{id, reference}]} that are there under another name), `files` ({host: {model: id
of its files}}) and `folder`, which holds `<host>.yml` for include_vars.
Environment: DEPLOYCTL_STATE, an id; empty for the last accepted state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from deploy_cli import history, paths, states
from deploy_cli.errors import Problem, UsageError, render_problems
from deploy_cli.plan import schema
from deploy_cli.plan.collect import read_roles

ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node and touches nothing but the run folder."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Choose, check, write; everything that speaks against it is a failed result.

        A host that was asked and is silent may know a newer accepted state, and `up` would stop at it only after the
        names of images were changed on the others: then nothing is begun.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        hostvars, groups = task_vars["hostvars"], task_vars["groups"]
        kept, looks, silent = history.gather(hostvars, groups)
        if silent:
            hint = "see that `ssh` to it works; `--limit '!HOST'` rolls the others back without it"
            told = f"{history.unanswered(silent)}: which states there are is not known; nothing was touched"
            return {**result, "failed": True, "msg": told, "hint": hint, "unseen": list(silent)}
        inventory = ", ".join(str(source) for source in task_vars.get("ansible_inventory_sources") or [])
        try:
            state = states.choose(kept, os.environ.get("DEPLOYCTL_STATE", ""), history.current(looks, "accepted"))
            problems = states.misfits(state, groups, inventory)
        except UsageError as error:
            problems = [Problem(inventory, str(error), error.hint)]
        if problems:
            found = [problem.as_dict() for problem in problems]
            return {**result, "failed": True, "msg": render_problems(problems, inventory), "problems": found}
        run_dir = paths.given_run_dir("rollback")
        folder = run_dir / "settings"
        folder.mkdir(mode=0o700, exist_ok=True)
        specs, defaults = read_roles(ROLES, self._loader)
        options = {name for role in specs.values() for name in role} | set(schema.SITE)
        tags: dict[str, list[dict[str, str]]] = {}
        for host in state["settings"]:
            now = [name for name in hostvars.raw_get(host) if name in options - states.secret_names(specs)]
            recorded, raw = states.settings_for(state, host, now, defaults)
            there = hostvars[host].get("site_kept", {}).get("images", [])
            recorded["images_overrides"], tags[host] = accepted_images(state, host, recorded, there)
            text = yaml.dump({**json.loads(json.dumps(raw)), **marked(recorded)}, Dumper=Dumper, sort_keys=True)
            paths.write_private(folder / f"{host}.yml", text)
        told = f"back to {state['id']}, accepted on {state['at']}"
        files = {host: files_of(state, host) for host in state["settings"]}
        chosen = {"state": state["id"], "images": tags, "files": files, "folder": str(folder), "run_dir": str(run_dir)}
        return {**result, "changed": False, "msg": told, **chosen}


def files_of(state: Mapping[str, Any], host: str) -> dict[str, str]:
    """Return {model: id of its files} as a host had them."""
    return {model["name"]: model["files"][host] for model in state["models"] if host in (model.get("files") or {})}


def accepted_images(
    state: Mapping[str, Any], host: str, recorded: Mapping[str, Any], there: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the overrides that name the images as they were, and those that the host still has, by id.

    An image that is there is taken as it is, though a newer deployctl would build it in another way.
    """
    chosen = {entry["name"]: dict(entry) for entry in recorded.get("images_overrides") or []}
    prefix, tags = recorded.get("images_registry_prefix") or "", []
    for image in state["images"]:
        plain = image["reference"].removeprefix(f"{prefix}/") if prefix else image["reference"]
        entry = chosen.setdefault(image["name"], {"name": image["name"]})
        entry["reference"] = plain
        if image["digest"]:
            entry["digest"] = image["digest"]
        if image["ids"].get(host) in there:
            entry["id"] = image["ids"][host]
            tags.append({"id": image["ids"][host], "reference": image["reference"]})
    return list(chosen.values()), tags


class Literal(str):
    """Text that is no template, whatever stands in it."""


class Dumper(yaml.SafeDumper):
    """Writes YAML as Ansible reads it."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: Ansible need not follow them."""
        return True


Dumper.add_representer(Literal, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def marked(value: Any) -> Any:
    """Mark all texts in which Ansible would look for a template."""
    if isinstance(value, Mapping):
        return {key: marked(part) for key, part in value.items()}
    if isinstance(value, list):
        return [marked(part) for part in value]
    return Literal(value) if isinstance(value, str) and any(sign in value for sign in ("{{", "{%", "{#")) else value
