"""Run a playbook: the only file that imports ansible_runner. A folder per run, events to the display, clean stops."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from deploy_cli import lock, paths
from deploy_cli.display import Display, mute
from deploy_cli.errors import ExitCode, UsageError
from deploy_cli.outcome import Outcome, judge, last_total, prune, write_run
from deploy_cli.paths import read_json, write_private
from deploy_cli.progress import Progress
from deploy_cli.request import Request, environment, extra_vars_files

GRACE_SECONDS = 10.0  # from the first SIGINT to ansible-playbook until it is killed
POLL_SECONDS = 0.5  # how often the runner asks whether to stop, and the display may speak
IDENT = "run"  # a run folder holds one run
RELEASE = "release"  # after one that failed
RELEASE_SECONDS = 60  # of hosts that do not answer; their mark ends by itself


def execute(
    request: Request, make_display: Callable[[Progress], Display], *, lasting: bool = True
) -> tuple[Outcome, dict[str, Any]]:
    """Run the request's playbook in a new run folder; return how it ended and what its plugins left in the folder.

    lasting=False: the folder is a temporary one that is gone when this returns, for what must leave no trace.
    What plugins leave: {file name: content} of the folder's own *.json files besides run.json.
    """
    runs = paths.runs_dir()
    started = time.time()
    progress = Progress(total=last_total(request, runs))
    folder = paths.new_run_dir(request.command, runs) if lasting else Path(tempfile.mkdtemp(prefix="deployctl-"))
    try:
        write_run(None, folder, request, started)
        display = make_display(progress)
        code, signalled = _ansible(request, folder, display)
        found = {file.name: read_json(file) for file in folder.glob("*.json") if file.name != "run.json"}
        outcome = _outcome(request, progress, folder, code, signalled, found)
        outcome.seconds = time.time() - started
        outcome.run_dir = folder if lasting else None
        try:
            write_run(outcome, folder, request, started, progress.tasks)
        except OSError as error:  # a full disk changes nothing about what the hosts have become
            outcome.hint = "; ".join(filter(None, (outcome.hint, f"{folder} is not complete: {error.strerror}")))
        return outcome, found
    except UsageError:
        shutil.rmtree(folder, ignore_errors=True)  # refused before anything ran
        raise
    except BaseException as error:
        words = f"{type(error).__name__}: {error}"
        with suppress(OSError):
            write_private(folder / "error.log", traceback.format_exc())
            if lasting:
                error.add_note(f"traceback: {folder / 'error.log'}")
            write_run(Outcome(request, ExitCode.OWN_FAULT, "error", words), folder, request, started)
        raise
    finally:
        if lasting:
            prune(runs)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _outcome(
    request: Request, progress: Progress, folder: Path, code: int, signalled: str, found: Mapping[str, Any]
) -> Outcome:
    acceptance = found.get("acceptance.json")
    verdict = str((acceptance or {}).get("verdict", ""))
    log = ""
    if code and not progress.results:
        log = (folder / "stdout").read_text(encoding="utf-8", errors="replace")
    exit_code, status, message, hint = judge(request, progress, code, signal=signalled, log=log, verdict=verdict)
    taken_back = (found.get("state.json") or {}).get("taken_back")
    if taken_back and status == "rejected":
        hint = f"the change was taken back: {', '.join(taken_back)} serve as before; what else it set stays, "
        hint += f"`deployctl rollback {request.inventory}` takes that back too"
    in_step = found.get("in_step.json")
    if in_step and status == "ok":
        status, message = "in_step", f"ACCEPTED on {in_step['since']} ({in_step['run']}); nothing has changed since"
    return Outcome(
        request,
        exit_code,
        status,
        message,
        hint,
        hosts=progress.per_host(),
        failures=progress.failures,
        problems=[dict(problem) for failure in progress.failures for problem in failure.problems],
        acceptance=acceptance,
        plan=found.get("plan.json"),
        changes=progress.changes,
    )


def _ansible(request: Request, folder: Path, display: Display) -> tuple[int, str]:
    """Run ansible-playbook under the display; return its code and the signal that stopped it, if one did."""
    import ansible_runner

    env_dir = folder / "env"
    env_dir.mkdir(mode=0o700)
    # Not as arguments: with suppress_env_files (which keeps passwords off the disk) the runner drops settings.
    settings = {"pexpect_timeout": POLL_SECONDS, "suppress_output_file": True}
    write_private(env_dir / "settings", json.dumps(settings))
    # What the runner and Ansible tell each other by files lies in memory where there is such a place: on a full disk
    # Ansible would wait for one of them for ever, in the middle of a change.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    between = Path(tempfile.mkdtemp(prefix="deployctl-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        options = request.options(extra_vars_files(request, env_dir))
        play = partial(
            ansible_runner.run,
            private_data_dir=str(folder),
            artifact_dir=str(between),
            project_dir=str(Path.cwd()),  # the working directory of the same line typed by hand
            inventory=[request.source] if request.hosts else str(request.inventory.resolve()),
            cmdline=shlex.join(options) if options else None,
            envvars=environment(folder, request),
            passwords=request.passwords() or None,
            suppress_env_files=True,
            fact_cache_type="memory",  # as bare Ansible: facts of hosts are not written down
            quiet=True,
        )
        stop = Stop(display)
        with _kept(folder / "events.jsonl") as events, _kept(folder / "stdout") as log, stop.watching():
            display.start()
            try:
                runner = play(
                    ident=IDENT,
                    playbook=str(paths.playbook(request.command)),
                    event_handler=_event_handler(display, stop, events, log),
                    status_handler=_status_handler(folder, IDENT),
                    cancel_callback=stop.tick,
                )
                signalled = stop.signal
                # Other machines need not wait for the mark of a run that has ended. What was stopped may go on there.
                if runner.status == "failed" and not signalled and (folder / lock.TAKEN).exists():
                    display.say("the hosts are freed for other runs")
                    play(
                        ident=RELEASE,
                        playbook=str(paths.content_dir() / "playbooks/plays/release.yml"),
                        event_handler=lambda event: log(str(event.get("stdout", ""))),
                        status_handler=_status_handler(folder, RELEASE),
                        cancel_callback=stop.again(),
                        timeout=RELEASE_SECONDS,
                    )
            finally:
                with suppress(OSError):
                    display.stop()
    finally:
        # -e values may be secrets: they live as long as ansible-playbook reads them.
        shutil.rmtree(env_dir, ignore_errors=True)
        shutil.rmtree(between, ignore_errors=True)
    return int(runner.rc), signalled


def _status_handler(folder: Path, ident: str) -> Callable[..., None]:
    """Keep the command without its environment, which holds tokens: the runner writes both beside its own files."""

    def handler(status: Mapping[str, Any], runner_config: Any) -> None:
        if status.get("status") == "running":
            Path(runner_config.artifact_dir, "command").unlink()
            with suppress(OSError):
                told = {"command": runner_config.command, "cwd": runner_config.cwd}
                write_private(folder / f"command-{ident}", json.dumps(told) + "\n")

    return handler


def _event_handler(
    display: Display, stop: Stop, events: Callable[[str], bool], log: Callable[[str], bool]
) -> Callable[[Mapping[str, Any]], bool]:
    def handler(event: Mapping[str, Any]) -> bool:
        stop.child = stop.child or int(event.get("pid") or 0)
        log(str(event.get("stdout", "")))
        line = compact(event)
        if line:
            events(json.dumps(line, ensure_ascii=False))
        display.event(event)
        return False  # events.jsonl has it; not one more file per event

    return handler


@contextmanager
def _kept(file: Path) -> Iterator[Callable[[str], bool]]:
    """Yield what appends lines to a private file; what finds no room there is lost, and the run goes on."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def keep(lines: str) -> bool:
        with suppress(OSError):
            os.write(descriptor, f"{lines}\n".encode(errors="replace") if lines else b"")
        return False

    try:
        yield keep
    finally:
        os.close(descriptor)


def compact(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of an event in events.jsonl: no results of tasks, only what failed and how far a wait is."""
    kind = str(event.get("event", ""))
    data: Mapping[str, Any] = event.get("event_data") or {}
    if kind in ("verbose", "debug", "playbook_on_notify", "playbook_on_include"):
        return {}
    line: dict[str, Any] = {"at": event.get("created"), "event": kind}
    if kind == "playbook_on_play_start":
        line["play"] = data.get("name")
    elif kind == "playbook_on_stats":
        line |= {name: data.get(name) for name in ("ok", "changed", "failures", "dark", "skipped", "rescued")}
    elif kind in ("warning", "deprecated", "error"):
        line["text"] = str(event.get("stdout", "")).strip()
    else:
        line |= {name: data[name] for name in ("role", "task", "host", "duration") if data.get(name) is not None}
        result: Mapping[str, Any] = data.get("res") or {}
        if result.get("changed"):
            line["changed"] = True
        if kind == "runner_retry":
            line |= {name: result[name] for name in ("progress", "attempts", "retries") if name in result}
        if kind in ("runner_on_failed", "runner_on_unreachable", "runner_item_on_failed"):
            line["msg"] = result.get("msg") or result.get("censored")
    return line


class Stop:
    """A clean stop: first SIGINT to ansible-playbook, which ends its workers; the kill only later, or when asked twice.

    The runner alone would kill the process group at once, and Ansible's workers, each in a session of its own, would go
    on working without a parent. A terminal that goes away stops nothing: what has begun is ended without a word.
    """

    def __init__(self, display: Display) -> None:
        """Speak through this display."""
        self.display = display
        self.child = 0  # process id of ansible-playbook
        self.signal = ""
        self._asked = 0
        self._sent = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and, where nobody has it ignored (nohup), SIGHUP inside the block."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            terminals = [stream for stream in (sys.stdout, sys.stderr) if stream.isatty()]
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda _number, _frame: mute(*terminals))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Only notes it: what is done about it happens in tick(), outside of whatever was interrupted.
        self.signal = self.signal or signal.Signals(number).name
        self._asked += 1

    def again(self) -> Callable[[], bool]:
        """Return what is asked instead of tick() once the run has ended: whether somebody wants no more of it."""
        asked = self._asked

        def watch() -> bool:
            self.display.tick()
            return self._asked > asked

        return watch

    def tick(self) -> bool:
        """Be asked by the runner twice a second; True tells it to kill."""
        with suppress(OSError):  # a terminal that has just gone away
            self.display.tick()
        if not self._asked:
            return False
        child = self.child or next(iter(processes().get(os.getpid(), [])), 0)
        if not self._sent and child:
            self.display.say("stopping: the step under way is ended, then the run (again Ctrl-C: at once)")
            self._sent = time.monotonic()
            _signal(child, signal.SIGINT)
            return False
        if self._sent and (self._asked > 1 or time.monotonic() - self._sent > GRACE_SECONDS):
            for pid in descendants(child):
                _signal(pid, signal.SIGKILL)
            return True
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def processes() -> dict[int, list[int]]:
    """Return {process id: its children}, from /proc, else from ps (a control node that is no Linux)."""
    pairs: list[tuple[int, int]] = []
    if Path("/proc/self/stat").exists():
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                # "pid (name, may hold blanks and brackets) state parent ..."
                pairs.append((int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])))
            except OSError:
                continue  # it has ended meanwhile
    else:
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        pairs = [(int(pid), int(parent)) for pid, parent in (line.split() for line in listed.splitlines())]
    children: dict[int, list[int]] = {}
    for pid, parent in pairs:
        children.setdefault(parent, []).append(pid)
    return children


def descendants(pid: int) -> list[int]:
    """Return a process's children, their children and so on, the nearest first."""
    children = processes()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found
