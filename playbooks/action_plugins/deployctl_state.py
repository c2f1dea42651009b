"""Writes down what a site is once it was judged: state.json in the run folder, and the same as `state` for the hosts.

Arguments: `plan`, `run_dir`, `gateways` ({host: SHA-256 of its haproxy.cfg}). The settings are those that the first
plan of this run found in the inventory (settings.json), and the roles' own where the inventory says nothing. Keys
stand in it by their ids only.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

from deploy_cli import paths, states
from deploy_cli.inputs import content_digest
from deploy_cli.plan.collect import read_roles

ROOT = Path(__file__).resolve().parents[2]
MODEL_KEYS = ("name", "source", "revision", "aliases", "replicas", "context_length")
INSTANCE_KEYS = ("name", "host", "model", "devices", "device_uuids", "port", "served_names", "engine_args", "env")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads what the roles registered on their hosts."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Collect and write; without a verdict there is no state."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = json.loads(json.dumps(self._task.args))
        plan, run_dir = given["plan"], Path(given["run_dir"])
        judged = paths.read_json(run_dir / "acceptance.json")
        settings = paths.read_json(run_dir / "settings.json")
        if not judged or not settings:
            return {**result, "changed": False, "state": {}}
        specs, defaults = read_roles(ROOT / "roles", self._loader)
        own = constants(defaults, {n for role in specs.values() for n in role} - states.secret_names(specs), ROOT)
        hostvars = task_vars["hostvars"]
        state = {
            "id": run_dir.name,
            "at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "site": plan["site"],
            "verdict": judged["verdict"],
            "taken_back": [aside["name"] for host in plan["hosts"] for aside in hostvars[host].get("vllm_aside") or []],
            "failed_checks": [check["id"] for check in judged["checks"] if not check["ok"]],
            "deployctl": {"version": importlib.metadata.version("deployctl"), "content": content_digest(ROOT)[:16]},
            "groups": settings["groups"],
            "settings": {host: {**own, **values} for host, values in settings["hosts"].items()},
            "keys": settings["keys"],
            "models": with_checksums(plan["models"], hostvars, plan["hosts"]),
            "instances": [{key: one[key] for key in INSTANCE_KEYS} for one in plan["instances"]],
            "images": images_of(hostvars, plan["hosts"]),
            "gateway": given["gateways"],
        }
        state["content"] = states.content(state)
        paths.write_private(run_dir / "state.json", json.dumps(state, indent=1) + "\n")
        return {**result, "changed": False, "state": state}


def constants(defaults: Mapping[str, Any], options: set[str], root: Path) -> dict[str, Any]:
    """Role defaults that hold no template and that no play or task sets: what a newer deployctl may have changed."""
    taken = set_by_plays(root)
    plain = {name: json.loads(json.dumps(defaults[name])) for name in options - taken if name in defaults}
    return {name: value for name, value in sorted(plain.items()) if "{{" not in json.dumps(value)}


def set_by_plays(root: Path) -> set[str]:
    """Names under any `vars` of the playbooks and roles, or in a file of them: those are not the user's to set."""
    found: set[str] = set()
    for file in (*(root / "playbooks").rglob("*.yml"), *(root / "roles").glob("*/tasks/*.yml")):
        content = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
        waiting = [{"vars": content} if file.parent.name == "vars" else content]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                found |= set(part["vars"]) if isinstance(part.get("vars"), dict) else set()
                waiting += part.values()
            elif isinstance(part, list):
                waiting += part
    return found


def with_checksums(models: list[dict[str, Any]], hostvars: Any, hosts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plan's models, each with the id of its files' checksums on each host."""
    found = []
    for model in models:
        ids = {}
        for host in hosts:
            stored = (hostvars[host].get("model_store_result") or {}).get("models") or {}
            if model["name"] in stored:
                ids[host] = stored[model["name"]]["id"]
        found.append({key: model.get(key) for key in MODEL_KEYS} | {"files": ids})
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def images_of(hostvars: Any, hosts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every image of the site, with its id on each host (a built one differs from host to host)."""
    found: dict[str, dict[str, Any]] = {}
    for host in hosts:
        for name, image in ((hostvars[host].get("images_result") or {}).get("images") or {}).items():
            entry = found.setdefault(
                name, {"name": name, "reference": image["reference"], "digest": image["digest"], "ids": {}}
            )
            entry["ids"][host] = image["id"]
    return json.loads(json.dumps(list(found.values())))  # type: ignore[no-any-return]
