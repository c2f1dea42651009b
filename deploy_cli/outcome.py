"""How a run ended: exit code, run.json, and the bookkeeping of the runs folder. Ansible's facts in, plain data out."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_cli import drift, paths, unparsed
from deploy_cli.errors import ExitCode
from deploy_cli.paths import read_json, write_private
from deploy_cli.plan import sources
from deploy_cli.plan.wording import ENCRYPTED, VAULT_HINT
from deploy_cli.progress import Failure, Progress
from deploy_cli.request import Request

KEEP_RUNS = 50  # of the commands that change or judge a site
KEEP_LOOKS = 10  # of the commands that only look, which may be called every few seconds
LOOKS = {"plan", "status", "doctor", "diff", "history", "init"}
CANCELLED = {"SIGINT": 130, "SIGTERM": 143}  # as the shell counts a program ended by a signal
PLAN_ACTION = "deployctl_plan"
VERDICT_TASK = "Site is accepted"  # of plays/verdict.yml: the one that fails where nothing but the verdict does


@dataclass
class Outcome:
    """The end of a run.

    `status` is ok, accepted, in_step, rejected, drifted, refused, failed, cancelled, nothing or error.
    """

    request: Request
    exit_code: int
    status: str
    message: str = ""
    hint: str = ""
    run_dir: Path | None = None
    hosts: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    acceptance: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    changes: list[drift.Change] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks per host."""
        return {host: counts.get("changed", 0) for host, counts in self.hosts.items()}

    def document(self) -> dict[str, Any]:
        """Return the run as the one JSON document of --json."""
        found: dict[str, Any] = {
            "command": self.request.command,
            "inventory": str(self.request.inventory),
            "status": self.status,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 1),
            "run_dir": str(self.run_dir) if self.run_dir else None,
            "changed": self.changed,
            "hosts": self.hosts,
            "message": self.message,
            "hint": self.hint,
            "problems": self.problems,
            "failures": [failure_data(failure) for failure in self.failures],
        }
        if self.plan is not None:
            found["plan"] = self.plan
        if self.acceptance is not None:
            found["acceptance"] = self.acceptance
        if self.request.command == "diff":
            found |= {"in_step": self.exit_code == ExitCode.ACCEPTED, "drift": drift.document(self.changes)}
        return found


def failure_data(failure: Failure) -> dict[str, Any]:
    """Return a failure as JSON data."""
    names = ("host", "task", "message", "hint", "where", "unreachable")
    return {name: getattr(failure, name) for name in names}


def judge(
    request: Request, progress: Progress, code: int, *, signal: str = "", log: str = "", verdict: str = ""
) -> tuple[int, str, str, str]:
    """Return (exit code, status, message, hint) of a run that ended with Ansible's return code.

    signal: SIGINT or SIGTERM when we were asked to stop. log: what ansible-playbook wrote. verdict: of acceptance.json.
    """
    failures = progress.failures
    if signal and code:
        return (
            CANCELLED[signal],
            "cancelled",
            "stopped before it was through; a step that had begun on a host may still end there",
            f"run `deployctl {request.command} {request.inventory}` again: it goes on where this one stopped",
        )
    where = ", ".join(sorted({host for failure in failures for host in failure.unseen or (failure.host,)}))
    refused = [failure for failure in failures if failure.problems]
    if refused and request.command == "diff" and progress.changes:
        # Run dry: nothing was touched, and what `up` would be refused for is part of what differs.
        return ExitCode.DRIFTED, "drifted", "hosts and inventory differ, and `deployctl up` would be refused", ""
    if refused and any(counts.get("changed") for counts in progress.per_host().values()):
        told = "refused on what the hosts have after the first steps; nothing that served was touched"
        return ExitCode.HOST_FAILED, "failed", told, ""
    if refused:
        return ExitCode.REFUSED, "refused", "refused; nothing was touched", ""
    if any(failure.action.endswith(PLAN_ACTION) for failure in failures):
        return ExitCode.OWN_FAULT, "error", "the plan could not be made", "please report this with the run folder"
    lost = any(failure.task != VERDICT_TASK or failure.unreachable for failure in failures)
    if verdict == "rejected" and not lost:
        return ExitCode.NOT_ACCEPTED, "rejected", "deployed, and the acceptance rejected it", ""
    if failures:
        if verdict == "rejected":
            hint = f"`deployctl up {request.inventory}` again, or `deployctl rollback`, finishes it"
            return ExitCode.HOST_FAILED, "failed", f"rejected, and then failed on {where}", hint
        return ExitCode.HOST_FAILED, "failed", f"failed on {where}", ""
    if code:
        return _before_any_task(code, log, request.inventory)
    if not progress.results:
        hint = "the tags (-t) or the hosts (-l) of this request leave nothing to run"
        return ExitCode.REFUSED, "nothing", "no task ran", hint
    if request.command == "diff" and progress.changes:
        return (
            ExitCode.DRIFTED,
            "drifted",
            "hosts and inventory differ",
            f"`deployctl up {request.inventory}` would do it",
        )
    return ExitCode.ACCEPTED, "accepted" if verdict else "ok", "", ""


def _before_any_task(code: int, log: str, inventory: Path) -> tuple[int, str, str, str]:
    """Tell a fault of ours from one of the request, when Ansible ended without running a task."""
    text = ansible_error(log)
    told = unparsed.reason(text, _clean(log))
    if not told and unparsed.about_vault(text) and (files := sources.encrypted(str(inventory))):
        told = f"{', '.join(files)}: {ENCRYPTED}", VAULT_HINT
    if told:
        what, hint = told
        return ExitCode.REFUSED, "refused", what, "; ".join(filter(None, (hint, "nothing was touched")))
    ours = any(f"{paths.content_dir()}/{name}" in text for name in ("playbooks", "roles"))
    if ours or not text or "Traceback" in text:
        text = text or f"ansible-playbook ended with {code} and said nothing"
        return ExitCode.OWN_FAULT, "error", text, "the whole log is in the run folder"
    return ExitCode.REFUSED, "refused", text, "nothing was touched"


def ansible_error(log: str) -> str:
    """Return the error that ansible-playbook ended with, out of its log; empty when it wrote none."""
    clean = _clean(log)
    found = re.search(r"^(?:\[ERROR\]: |ERROR(?:!|:) |Traceback |usage: )", clean, re.MULTILINE)
    if not found:
        return ""
    text = clean[found.start() :].strip()
    if text.startswith("Traceback ") and (ended := re.findall(r"^[\w.]+: .*", text, re.MULTILINE)):
        # Of its own errors, such as a setting of the environment that it cannot take, the class says nothing.
        text = re.sub(r"^ansible\.errors\.\w+: ", "", ended[-1])
        return (text if text != ended[-1] else f"ansible-playbook ended with a Traceback: {text}")[:2000]
    return re.sub(r"^(?:\[ERROR\]: |ERROR(?:!|:) )", "", text)[:2000]


def _clean(log: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log).replace("\r", "")


def write_run(outcome: Outcome | None, run_dir: Path, request: Request, started: float, tasks: int = 0) -> None:
    """Write run.json (0600): at the start of a run with outcome None, and again at its end."""
    stamp = "%Y-%m-%dT%H:%M:%S%z"
    data: dict[str, Any] = {
        "command": request.command,
        "inventory": str(request.inventory),
        "inventory_path": str(request.inventory.resolve()),
        **_shape(request),
        "pid": os.getpid(),
        "started": time.strftime(stamp, time.localtime(started)),
        "ended": None,
        "status": "running",
        "exit_code": None,
    }
    if outcome is not None:
        data |= {
            "ended": time.strftime(stamp),
            "status": outcome.status,
            "exit_code": int(outcome.exit_code),
            "seconds": round(outcome.seconds, 1),
            "tasks": tasks,
            "changed": outcome.changed,
            "hosts": outcome.hosts,
            "message": outcome.message,
            "problems": outcome.problems,
            "failures": [failure_data(failure) for failure in outcome.failures],
        }
    write_private(run_dir / "run.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _shape(request: Request) -> dict[str, Any]:
    """Return what makes two runs alike in length."""
    return {
        "limit": request.limit,
        "tags": list(request.tags),
        "skip_tags": list(request.skip_tags),
        "check": request.check,
    }


def last_total(request: Request, runs: Path) -> int | None:
    """Return how many tasks the last whole run like this one had; None when there was none."""
    alike = {"command": request.command, "inventory_path": str(request.inventory.resolve()), **_shape(request)}
    for folder in paths.run_dirs(runs):
        data = read_json(folder / "run.json") or {}
        if data.get("exit_code") in (0, 4) and all(data.get(key) == value for key, value in alike.items()):
            return int(data.get("tasks") or 0) or None
    return None


def prune(runs: Path, keep_runs: int = KEEP_RUNS, keep_looks: int = KEEP_LOOKS) -> list[Path]:
    """Remove old run folders and return them. Never the last accepted run of an inventory, never one still running."""
    removed: list[Path] = []
    accepted: set[str] = set()
    kept = {True: 0, False: 0}
    for folder in paths.run_dirs(runs):
        data = read_json(folder / "run.json") or {}
        site = str(data.get("inventory_path"))
        verdict = (read_json(folder / "acceptance.json") or {}).get("verdict")
        last_accepted = verdict == "accepted" and site not in accepted
        if last_accepted:
            accepted.add(site)
        look = data.get("command", folder.name.split("-")[1]) in LOOKS
        kept[look] += 1
        old = kept[look] > (keep_looks if look else keep_runs)
        if old and not last_accepted and not _alive(data):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _alive(data: Mapping[str, Any]) -> bool:
    """Say whether a run is still going: no end written, and its process is there."""
    if data.get("ended") or not isinstance(data.get("pid"), int):
        return False
    try:
        os.kill(data["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def last_judged(runs: Path, inventory: Path) -> Path | None:
    """Return the newest run folder of an inventory that holds a verdict; None when there is none."""
    for folder in paths.run_dirs(runs):
        if read_json(folder / "acceptance.json") is None:
            continue
        # A run of bare ansible-playbook has no run.json; its plan names the inventory.
        known = (read_json(folder / "run.json") or {}).get("inventory_path")
        known = known or (read_json(folder / "plan.json") or {}).get("inventory")
        if known and Path(known).resolve() == inventory.resolve():
            return folder
    return None
