"""What a run is doing, told from Ansible's events: a live view on a terminal, plain lines everywhere else.

`Progress` is pure (events in, state and notes out); the displays only draw it. rich is imported when first drawn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy_cli.drift import Change, to_change

LONG_SECONDS = 5.0  # a task that took longer gets a line of its own
QUIET_SECONDS = 10.0  # without a terminal, a running task is mentioned at most this often
ENDED = {"runner_on_ok", "runner_on_failed", "runner_on_skipped", "runner_on_unreachable"}
SPARE_MESSAGES = ("", "non-zero return code", "All items completed", "One or more items failed")
TELLING = ("debug", "vllm_canary")  # actions whose message is for whoever watches
HINTS = (
    ("missing sudo password", "give -K, so that deployctl asks for the become password"),
    ("incorrect sudo password", "the become password was refused: try -K again"),
    ("host key verification failed", "log in once with ssh and check the host's key; deployctl never skips that check"),
    ("permission denied (publickey", "the host refuses this user's key: check ansible_user and your ssh agent"),
    ("no space left on device", "make room on the host, then run the same command again"),
)
UNREACHABLE_HINT = "check that `ssh` to this host works, and ansible_host and ansible_user in the inventory"


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host: what Ansible said, what to do, and where the task stands (file:line)."""

    host: str
    task: str
    message: str
    hint: str = ""
    where: str = ""
    unreachable: bool = False
    action: str = ""
    problems: tuple[Mapping[str, Any], ...] = ()
    unseen: tuple[str, ...] = ()  # hosts that are the cause, where another one tells of them


@dataclass(frozen=True)
class Note:
    """Something worth a line: kind is play, changed, slow, failed, ignored, told or diff; seconds says how long."""

    kind: str
    task: str
    host: str = ""
    seconds: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        if self.kind == "play":
            return f"== {self.task}"
        if self.kind == "diff":
            return self.task
        if self.kind == "told":
            return self.detail
        mark = {"changed": "changed", "slow": "ok", "ignored": "ignored"}.get(self.kind, "FAILED")
        took = f" ({clock(self.seconds)})" if self.seconds >= 1 else ""
        return f"{mark:<8}{self.host}: {self.task}{took}{': ' + self.detail if self.detail else ''}"


@dataclass
class Running:
    """A task under way: the hosts it still runs on, each with its start (clock seconds), what it waits for."""

    title: str
    since: float
    hosts: dict[str, float] = field(default_factory=dict)
    detail: dict[str, str] = field(default_factory=dict)


@dataclass
class Progress:
    """The state of a run, fed with ansible-runner's events."""

    total: int | None = None  # tasks of the last run like this one
    now: Callable[[], float] = time.monotonic
    play: str = ""
    tasks: int = 0
    results: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    stats: dict[str, dict[str, int]] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)
    _diffs: list[str] = field(default_factory=list)  # of the task whose end is still to come

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started = self.now()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.now() - self.started

    @property
    def failures(self) -> list[Failure]:
        """What failed and was not rescued."""
        if self.stats is None:
            return list(self._failures)
        bad = {**self.stats.get("failures", {}), **self.stats.get("dark", {})}
        return [failure for failure in self._failures if bad.get(failure.host)]

    def feed(self, event: Mapping[str, Any]) -> list[Note]:
        """Take one event; return what is worth a line."""
        kind = str(event.get("event", ""))
        data: Mapping[str, Any] = event.get("event_data") or {}
        if kind == "playbook_on_play_start":
            self.play = str(data.get("name") or data.get("play") or "")
            return [Note("play", self.play)]
        if kind == "playbook_on_task_start":
            self.tasks += 1
            # Ansible runs one task after the other: whatever is still listed without a host has ended.
            self.running = {key: task for key, task in self.running.items() if task.hosts}
            self.running[_key(data)] = Running(_title(data), self.now())
        elif kind == "runner_on_start":
            task = self.running.setdefault(_key(data), Running(_title(data), self.now()))
            task.hosts[str(data.get("host"))] = self.now()
        elif kind == "runner_retry":
            self._retry(data)
        elif kind == "runner_on_file_diff":
            text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(event.get("stdout") or "")).replace("\r", "").strip("\n")
            self._diffs += [text] if text else []
            return [Note("diff", text)] if text else []
        elif kind == "playbook_on_stats":
            names = ("ok", "changed", "failures", "dark", "skipped", "rescued", "ignored")
            self.stats = {name: dict(data.get(name) or {}) for name in names}
            self.running.clear()
        elif kind in ENDED:
            return self._ended(kind, data)
        return []

    def _retry(self, data: Mapping[str, Any]) -> None:
        task = self.running.get(_key(data))
        result = data.get("res") or {}
        if task is not None:
            tries = f"attempt {result.get('attempts')} of {result.get('retries')}"
            task.detail[str(data.get("host"))] = _one_line(result.get("progress") or tries)

    def _ended(self, kind: str, data: Mapping[str, Any]) -> list[Note]:
        host = str(data.get("host"))
        title = _title(data)
        self.results += 1
        task = self.running.get(_key(data))
        began = task.hosts.pop(host, self.now()) if task else self.now()
        if task:
            task.detail.pop(host, None)
        seconds = float(data.get("duration") or self.now() - began)
        result: Mapping[str, Any] = data.get("res") or {}
        diff, self._diffs = "\n".join(self._diffs), []
        if kind == "runner_on_ok":
            # What a playbook has to say to whoever watches.
            told = str(result.get("msg") or "") if str(data.get("task_action")).endswith(TELLING) else ""
            if result.get("changed"):
                self.changes.append(to_change(data, diff))
                self.changed[host] = self.changed.get(host, 0) + 1
                return [Note("changed", told or title, host, seconds)]
            if told:
                return [Note("told", title, host, seconds, told)]
            return [Note("slow", title, host, seconds)] if seconds > LONG_SECONDS else []
        if kind == "runner_on_skipped":
            return []
        failure = to_failure(data, unreachable=kind == "runner_on_unreachable")
        if data.get("ignore_errors"):
            return [Note("ignored", title, host, seconds, failure.message)]
        self._failures.append(failure)
        return [Note("failed", title, host, seconds, failure.message)]

    def per_host(self) -> dict[str, dict[str, int]]:
        """Return {host: {ok, changed, failed, unreachable, skipped}} as Ansible's recap counts it."""
        stats = self.stats
        if stats is None:  # the run was killed before its recap
            return {host: {"changed": count} for host, count in sorted(self.changed.items())}
        hosts = sorted({host for counts in stats.values() for host in counts})
        names = {"ok": "ok", "changed": "changed", "failures": "failed", "dark": "unreachable", "skipped": "skipped"}
        return {host: {shown: int(stats[name].get(host, 0)) for name, shown in names.items()} for host in hosts}

    def lines(self) -> list[str]:
        """Say what runs now, one line per task and, where it is known, what each host waits for."""
        found: list[str] = []
        for task in self.running.values():
            hosts = ", ".join(task.hosts) or "..."
            since = min(task.hosts.values(), default=task.since)
            found.append(f"{task.title} ({hosts}) {clock(self.now() - since)}")
            single = len(task.hosts) == 1
            found += [f"  {text}" if single else f"  {host}: {text}" for host, text in task.detail.items()]
        return found


def to_failure(data: Mapping[str, Any], *, unreachable: bool = False) -> Failure:
    """Make a Failure of the event of a failed or unreachable task."""
    result: Mapping[str, Any] = data.get("res") or {}
    message = failure_message(result)
    known = next((hint for words, hint in HINTS if words in message.lower()), "")
    hint = str(result.get("hint") or known or (UNREACHABLE_HINT if unreachable else ""))
    # Other actions have results of that name too.
    found = result.get("problems")
    problems = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    return Failure(
        host=str(data.get("host")),
        task=_title(data),
        message=message,
        hint=hint,
        where=str(data.get("task_path") or ""),
        unreachable=unreachable,
        action=str(data.get("task_action") or ""),
        problems=tuple(problems),
        unseen=tuple(str(name) for name in result.get("unseen") or ()),
    )


def failure_message(result: Mapping[str, Any]) -> str:
    """Return the words of a failed result that help: of its failed items, its message, the end of its error output."""
    items = [item for item in result.get("results") or [] if isinstance(item, Mapping) and item.get("failed")]
    if items:
        told = [f"{_label(item)}{failure_message(item)}" for item in items[:3]]
        more = [f"and {len(items) - 3} more items"] if len(items) > 3 else []
        return "\n".join(told + more)
    # A file of tasks that cannot be read has a reason, no message.
    message = str(result.get("msg") or result.get("reason") or result.get("censored") or "").strip()
    if message.rstrip(".") in SPARE_MESSAGES or message.startswith("MODULE FAILURE"):
        for key in ("stderr", "module_stderr", "stdout", "module_stdout"):
            tail = [line for line in str(result.get(key) or "").splitlines() if line.strip()][-5:]
            if tail:
                return "\n".join([*([message] if message else []), *tail])
    return message or "failed without a message"


def _label(item: Mapping[str, Any]) -> str:
    shown = item.get("_ansible_item_label", item.get("item"))
    if isinstance(shown, Mapping):
        shown = shown.get("name", "")
    return f"{shown}: " if shown not in (None, "") else ""


def _key(data: Mapping[str, Any]) -> str:
    return str(data.get("task_uuid") or data.get("uuid") or "")


def _title(data: Mapping[str, Any]) -> str:
    name = str(data.get("task") or data.get("name") or "")
    role = data.get("role")
    return f"{role} : {name}" if role and not name.startswith(f"{role} : ") else name


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def clock(seconds: float) -> str:
    """Write a time for people: 4.2s, 37s, 1m05s, 2h03m."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
