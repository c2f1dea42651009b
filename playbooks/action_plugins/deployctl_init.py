"""Write the inventory of hosts that were looked at; see deploy_cli/init. Tells by init.json in the run folder."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli import paths
from deploy_cli.errors import DeployctlError, Problem
from deploy_cli.init import hosts as init_hosts
from deploy_cli.init import keys, report, site, targets, text, write
from deploy_cli.plan.collect import READ_DEFAULTS, plain, read_roles

ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads what the look registered, and what is wanted from the environment."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(())

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer (see deploy_cli/init/report.py); failed when nothing could be written."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        settings = {name: os.environ.get(variable, "") for name, variable in targets.SETTINGS.items()}
        try:
            wanted = targets.from_settings(settings)
        except DeployctlError as error:
            return result | {
                "failed": True,
                "msg": f"{error} ({error.hint}); see {', '.join(targets.SETTINGS.values())}",
            }
        folder = Path(settings["folder"] or "inventories")
        try:
            # `deployctl` has asked before the hosts were looked at; ansible-playbook by itself has not.
            write.check(folder / f"{wanted.site}.yml", dry=self._task.check_mode)
        except DeployctlError as error:
            problem = Problem(str(folder), str(error), error.hint)
            return result | {"failed": True, "msg": f"{error} ({error.hint})", "problems": [problem.as_dict()]}
        answer = self._answer(wanted, folder, (task_vars or {})["hostvars"], force=settings["force"] == "1")
        run_dir = os.environ.get("DEPLOYCTL_RUN_DIR")
        if run_dir:
            paths.write_private(Path(run_dir) / "init.json", json.dumps(answer, indent=1) + "\n")
        failed = answer["status"] in ("failed", "refused")
        told = report.message(answer)
        return result | {
            "failed": failed,
            "changed": bool(answer["written"]),
            "msg": "\n".join(told) if failed else told,
        }

    def _answer(self, wanted: targets.Wanted, folder: Path, hostvars: Any, *, force: bool) -> dict[str, Any]:
        answers = {target.word: _of(hostvars, target.word) for target in wanted.targets}
        found, problems = init_hosts.found(wanted, answers)
        if problems:
            return report.failed(wanted, folder, _asked(wanted, problems))
        specs, defaults = read_roles(ROLES, self._loader)
        read = {name: plain(value) for name, value in defaults.items() if READ_DEFAULTS.fullmatch(name)}
        made, refused = site.make(wanted, found, specs, read)
        if refused:
            return report.failed(wanted, folder, refused)
        texts = text.files(made, str(folder / f"{wanted.site}.yml"))
        states = write.compare(folder, texts)
        told = write.changes(folder, texts)
        writes = not self._task.check_mode and (force or "differs" not in states.values())
        if writes:
            write.write(folder, {name: one for name, one in texts.items() if states[name] != "same"})
        return report.done(made, folder, texts, states, told, wrote=writes, check=self._task.check_mode)


def _of(hostvars: Any, word: str) -> dict[str, Any]:
    """What the modules answered on one host, and the message of the one that did not."""
    if word not in hostvars:
        return {"message": "it is not among the hosts of the line (-i)"}
    known = hostvars[word]
    hardware, system, gpus = (known.get(f"init_{part}") or {} for part in ("hardware", "system", "gpus"))
    last = hardware if "hardware" not in hardware else system if "look" not in system else gpus
    words = [str(last.get(key) or "") for key in ("msg", "module_stderr", "module_stdout", "exception")]
    return {
        "hardware": hardware.get("hardware"),
        "system": system.get("look"),
        "gpu": (gpus.get("ansible_facts") or {}).get("gpu"),
        "message": " ".join(word for word in words if word),
    }


def _asked(wanted: targets.Wanted, problems: list[Problem]) -> list[Problem]:
    """Ask ssh once more where a key is unknown or the reason was lost; all hosts at once, since each may take long."""
    named = {target.word: target for target in wanted.targets}
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda problem: _once_more(named[problem.where], problem), problems))


def _once_more(target: targets.Target, problem: Problem) -> Problem:
    if problem.what not in (init_hosts.KEY_UNKNOWN, init_hosts.UNREACHABLE):
        return problem
    told = keys.ask(target.word)
    if problem.what == init_hosts.UNREACHABLE:
        problem = init_hosts.unseen(target, keys.reason(told)) if keys.reason(told) else problem
    key = keys.shown_key(told) if problem.what == init_hosts.KEY_UNKNOWN else ""
    return replace(problem, what=f"{problem.what}; it shows {key}") if key else problem
