"""What is seen of the engine in one look: its metrics, and its processes in /proc."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ENGINE = re.compile(r"EngineCore|Worker")
TICKS = os.sysconf("SC_CLK_TCK")
UNFINISHED = ("vllm:num_requests_running", "vllm:num_requests_waiting_by_reason")
# All of them come from the engine's core with each of its steps, so that they stand still when it does. Tokens alone
# would not do: those of a prompt are counted when the whole prompt is done, while every chunk of it takes cache.
PROGRESS = (
    *UNFINISHED,
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
)


@dataclass
class Engine:
    """What one engine core says of itself: its requests, those a step is due for, the numbers that move with steps."""

    requests: float = 0
    unfinished: float = 0
    asleep: bool = False
    numbers: dict[str, float] = field(default_factory=dict)


def engines_in(text: str) -> dict[str, Engine]:
    """Metrics in Prometheus' text format -> engines by their number; none when the engine keeps no statistics."""
    found: dict[str, Engine] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name not in PROGRESS and name != "vllm:engine_sleep_state":
            continue
        labels, _, value = rest.rpartition("} ")
        number = re.search(r'\bengine="([^"]*)"', labels)
        engine = found.setdefault(number.group(1) if number else "", Engine())
        if name == "vllm:engine_sleep_state":
            engine.asleep |= 'sleep_state="awake"' in labels and float(value) == 0
            continue
        if name in UNFINISHED:
            engine.requests += float(value)
        # Deferred ones wait for something else (another engine's cache, a grammar), not for a step.
        if name in UNFINISHED and 'reason="deferred"' not in labels:
            engine.unfinished += float(value)
        engine.numbers[f"{name} {labels}"] = float(value)
    return found


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it; CPU in seconds, that of children that have ended apart."""

    pid: int
    parent: int
    state: str
    cpu: float
    ended_cpu: float
    command: str


def processes() -> list[Process]:
    """Every process that can be seen; those that end meanwhile are left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            user, system, child_user, child_system = (int(ticks) / TICKS for ticks in fields[11:15])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            found.append(
                Process(int(folder.name), int(fields[1]), fields[0], user + system, child_user + child_system, command)
            )
    return found


def family(everything: Iterable[Process], root: int) -> list[Process]:
    """A process and all that descend from it, in the order of their numbers."""
    known = sorted(everything, key=lambda process: process.pid)
    members = {root}
    while True:
        more = {process.pid for process in known if process.parent in members} - members
        if not more:
            return [process for process in known if process.pid in members]
        members |= more


@dataclass(frozen=True)
class Look:
    """What one look saw; `engines` is None when the server gave no metrics."""

    engines: dict[str, Engine] | None
    server: list[Process]
    cores: list[Process]
    helpers: list[Process]

    @staticmethod
    def at(engines: dict[str, Engine] | None, members: list[Process], root: int) -> Look:
        """Sort the engine's processes; those of an engine that does not name its processes all count as its cores."""
        living = [process for process in members if process.state != "Z"]
        server = [process for process in living if process.pid == root or "APIServer" in process.command]
        rest = [process for process in living if process not in server]
        cores = [process for process in rest if ENGINE.search(process.command)]
        if not cores:
            return Look(engines, server, rest, [])
        return Look(engines, server, cores, [process for process in rest if process not in cores])
