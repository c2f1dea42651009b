"""The answer of `init`, as JSON data and as text. Pure.

Keys: version, site, inventory, status, files {path: new, same or differs}, written [path], contents {path: text} (dry
runs only), diff, hosts {name: user@host}, groups, models [name], warnings and problems [{where, what, hint}], next.
status: written, same (nothing to do), dry (-C), refused (files are there), failed (hosts could not be looked at).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy_cli.errors import Problem, count, render_problems
from deploy_cli.init.site import Site
from deploy_cli.init.targets import Wanted


def _empty(wanted: Wanted, folder: Path) -> dict[str, Any]:
    inventory = str(folder / f"{wanted.site}.yml")
    lists: dict[str, Any] = {name: [] for name in ("written", "models", "warnings", "problems", "next")}
    maps: dict[str, Any] = {name: {} for name in ("files", "contents", "hosts", "groups")}
    return {"version": 1, "site": wanted.site, "inventory": inventory, "status": "failed", "diff": "", **lists, **maps}


def failed(wanted: Wanted, folder: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the answer when nothing could be made."""
    return _empty(wanted, folder) | {"problems": [problem.as_dict() for problem in problems]}


def done(
    site: Site,
    folder: Path,
    texts: Mapping[str, str],
    states: Mapping[str, str],
    diff: str,
    *,
    wrote: bool,
    check: bool,
) -> dict[str, Any]:
    """Return the answer when the site was made. wrote: its files are there now."""
    inventory = str(folder / f"{site.wanted.site}.yml")
    differs = [str(folder / name) for name, state in states.items() if state == "differs"]
    same = not set(states.values()) - {"same"}
    status = "same" if same else "dry" if check else "written" if wrote else "refused"
    found = _empty(site.wanted, folder) | {
        "status": status,
        "files": {str(folder / name): state for name, state in states.items()},
        "written": [str(folder / name) for name, state in states.items() if wrote and state != "same"],
        "contents": {str(folder / name): text for name, text in texts.items()} if check else {},
        "diff": diff,
        "hosts": {host.name: host.target.word for host in site.hosts},
        "groups": site.groups,
        "models": [model["name"] for model in site.models],
        "warnings": [warning.as_dict() for warning in site.warnings],
        "next": [f"deployctl {command} {inventory}" for command in ("plan", "doctor", "up")],
    }
    if status == "refused":
        hint = "see what would change above; --force replaces them, --inventories writes elsewhere"
        found["problems"] = [Problem(name, "it is there already and differs", hint).as_dict() for name in differs]
        found["next"] = []
    return found


def message(answer: Mapping[str, Any]) -> list[str]:
    """Return the answer as lines, for the log and for bare ansible-playbook."""
    if answer["problems"]:
        problems = [Problem(one["where"], one["what"], one["hint"]) for one in answer["problems"]]
        return [*answer["diff"].splitlines(), *render_problems(problems).replace("touched", "written").splitlines()]
    return lines(answer)


def lines(answer: Mapping[str, Any]) -> list[str]:
    """Return what was written, or would be, and what comes next."""
    found: list[str] = []
    for name, text in answer["contents"].items():
        found += [f"# ---- {name} ({answer['files'][name]})", *text.splitlines(), ""]
    found += answer["diff"].splitlines()
    serving = ", ".join(answer["groups"]["serving"])
    found.append(f"{answer['site']}: serving {serving}; gateway {', '.join(answer['groups']['gateway'])}; traces "
                 f"{', '.join(answer['groups']['telemetry'])}; {count(len(answer['models']), 'model')}: "
                 f"{', '.join(answer['models'])}")  # fmt: skip
    for warning in answer["warnings"]:
        found += [f"Warning: {warning['where']}: {warning['what']}", f"  Hint: {warning['hint']}"]
    words = {"same": "as it is there", "dry": "not written (-C)", "written": "written"}[answer["status"]]
    found += [f"{words}: {name}" for name in answer["files"]]
    if answer["status"] != "dry":
        found += ["next:", *(f"  {command}" for command in answer["next"])]
    return found
