"""Write a bundle on the control node; thin, see deploy_cli/bundle/pack.py. Meant for `until: result.finished`.

`state: possible` only says whether it could be written, and which Debian suites are needed for it. In check mode: what
would be packed. What was packed stands in bundle.json of the run folder too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.bundle import background, pack
from deploy_cli.bundle.manifest import RELEASES
from deploy_cli.errors import DeployctlError, render_problems
from deploy_cli.paths import write_private

LISTS = {name: {"type": "list", "default": []} for name in ("images", "models", "pythons", "bases", "names")}
LISTS |= {name: {"type": "list", "default": []} for name in ("sources", "keyrings", "releases", "sets", "notes")}
TEXTS = {name: {"type": "str", "default": ""} for name in ("site", "inventory", "work", "components", "store")}
SPEC = {
    "state": {"type": "str", "choices": ["possible", "packed"], "default": "packed"},
    "output": {"type": "str", "required": True},
    "force": {"type": "bool", "default": False},
    "gzip_level": {"type": "int", "default": 1},
    "engine_packages": {"type": "dict", "default": {}},
    **LISTS,
    **TEXTS,
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return finished, progress and, in the end, `bundle` ({file, id, size, parts, ...}) or `expected` parts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec=SPEC)
        arguments = json.loads(json.dumps(arguments))  # plain data, without Ansible's tags
        given = Path(arguments["output"] or f"{Path(arguments['inventory']).stem}.bundle.tar")
        output = given.expanduser().absolute()
        if arguments["state"] == "possible":
            problems = pack.refused(output, force=arguments["force"], releases=arguments["releases"])
            if problems:
                found = [problem.as_dict() for problem in problems]
                return {**result, "failed": True, "msg": render_problems(problems), "problems": found}
            suites = [RELEASES[release] for release in arguments["releases"]]
            return {**result, "changed": False, "suites": suites, "file": str(output)}
        store = Path(arguments["store"])
        models = [{**model, "folder": str(store / model["store_name"])} for model in arguments["models"]]
        request = {**arguments, "output": str(output), "models": models, "packages": _packages(arguments)}
        if self._task.check_mode:
            parts = pack.expected(request)
            _leave({"file": str(output), "expected": parts, "notes": arguments["notes"]})
            return {**result, "changed": True, "finished": True, "expected": [list(part) for part in parts]}
        try:
            ended, progress, done = background.step(f"pack {output}", lambda say: pack.pack(request, say))
        except DeployctlError as error:
            return {**result, "failed": True, "finished": True, "msg": str(error), "hint": error.hint}
        except OSError as error:
            hint = "make room there, then run again: it goes on where this one stopped"
            return {**result, "failed": True, "finished": True, "msg": f"{output}: {error}", "hint": hint}
        if ended:
            _leave(done)
            result["bundle"] = done
        return {**result, "changed": ended, "finished": ended, "progress": progress}


def _packages(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """What packages.pack takes, for each release; the engine's packages by release, else by family."""
    engine = arguments["engine_packages"]
    bases = {base["item"]: base for base in arguments["bases"]}
    found = []
    for release in arguments["releases"]:
        base = bases.get(RELEASES[release], {})
        found.append(
            {
                "release": release,
                "suite": RELEASES[release],
                "base": base.get("base", ""),
                "mirror": base.get("mirror", ""),
                "apt_settings": base.get("apt_settings", ""),
                "components": arguments["components"],
                "sources": arguments["sources"],
                "keyrings": arguments["keyrings"],
                "sets": _unique(one for one in arguments["sets"] if one["release"] in ("", release)),
                "names": [*(engine.get(release) or engine.get("Debian") or []), *arguments["names"]],
            }
        )
    return found


def _unique(sets: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that ask for something, each once: hosts that are alike ask for the same."""
    found: list[dict[str, Any]] = []
    for one in sets:
        if one["names"] and one not in found:
            found.append(one)
    return found


def _leave(found: dict[str, Any]) -> None:
    """Tell deployctl, which shows it when the run has ended."""
    folder = os.environ.get("DEPLOYCTL_RUN_DIR")
    if folder:
        write_private(Path(folder) / "bundle.json", json.dumps(found) + "\n")
