"""What the heartbeat calls a hang and what not, and how it counts its kills."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "roles/vllm/files/heartbeat"


@pytest.fixture(scope="module")
def parts() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    importlib.import_module("judge")
    yield importlib.import_module("heartbeat")
    sys.path.remove(str(FOLDER))
    for name in ("heartbeat", "judge", "look"):
        del sys.modules[name]


def metrics(running: float = 0, waiting: float = 0, deferred: float = 0, tokens: float = 0, engine: int = 0) -> str:
    label = f'engine="{engine}",model_name="a}} b"'
    return f"""# HELP vllm:num_requests_running Number of requests.
vllm:num_requests_running{{{label}}} {running}
vllm:num_requests_waiting_by_reason{{{label},reason="capacity"}} {waiting}
vllm:num_requests_waiting_by_reason{{{label},reason="deferred"}} {deferred}
vllm:generation_tokens_total{{{label}}} {tokens}
vllm:e2e_request_latency_seconds_bucket{{{label},le="0.3"}} 1.0
"""


class Site:
    """A judge, and the processes it sees: server 10 with core 11 and helper 12; seven seconds are a hang."""

    def __init__(self, parts: Any, **limits: float) -> None:
        self.parts = parts
        bounds = {"seconds": 7, "spin_seconds": 20, "busy_seconds": 60, "start_seconds": 100, **limits}
        self.judge = sys.modules["judge"].Judge(parts.Limits(**bounds))
        self.cpu = {10: 0.0, 11: 0.0, 12: 0.0}
        self.ended_cpu = 0.0
        self.state = {10: "S", 11: "S", 12: "S"}

    def see(self, text: str | None, seconds: float = 1, **used: float) -> str:
        """One look; `server`, `core`, `helper`, `ended`: share of a CPU that each of them uses."""
        for pid, part in ((10, "server"), (11, "core"), (12, "helper")):
            self.cpu[pid] += used.get(part, 0) * seconds
        self.ended_cpu += used.get("ended", 0) * seconds
        commands = {10: "vllm serve /model", 11: "VLLM::EngineCore", 12: "cicc kernel.cu"}
        members = [
            sys.modules["look"].Process(
                pid, 1, self.state[pid], self.cpu[pid], self.ended_cpu if pid == 11 else 0, command
            )
            for pid, command in commands.items()
        ]
        engines = None if text is None else self.parts.engines_in(text)
        return str(self.judge.judge(self.parts.Look.at(engines, members, 10), seconds))

    def until(self, text: str | None, most: int, **used: float) -> int:
        """After how many looks of a second it was called a hang; 0 when it was not, within `most`."""
        return next((second for second in range(1, most + 1) if self.see(text, **used)), 0)


@pytest.fixture
def site(parts: Any) -> Site:
    made = Site(parts)
    assert made.see(metrics(running=1, tokens=1)) == ""
    return made


def test_running_requests_without_a_step_or_cpu_are_a_hang_within_ten_seconds(site: Site) -> None:
    assert site.until(metrics(running=3, tokens=1), 30) == 8  # the first look of it still is a change
    assert "3 unfinished requests and made no step for 8.0 s, no CPU used" in site.see(metrics(running=3, tokens=1))


def test_waiting_requests_count_and_deferred_ones_do_not(site: Site) -> None:
    assert site.until(metrics(waiting=2), 30) == 8
    assert site.until(metrics(deferred=2), 300) == 0


def test_nothing_to_do_is_no_hang(site: Site) -> None:
    assert site.until(metrics(), 300) == 0


def test_a_sleeping_engine_is_no_hang(site: Site) -> None:
    asleep = 'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
    assert site.until(metrics(running=1) + asleep, 300) == 0
    assert site.until(metrics(running=1) + asleep.replace("0.0", "1.0"), 300) == 7


def test_an_engine_without_statistics_is_not_judged_by_them(site: Site) -> None:
    assert site.until("process_cpu_seconds_total 3.0\n", 300) == 0


@pytest.mark.parametrize(
    "moving",
    [
        'vllm:kv_cache_usage_perc{{engine="0"}} 0.{0}',  # a chunk of a long prompt
        'vllm:prompt_tokens_total{{engine="0"}} {0}.0',
        'vllm:generation_tokens_total{{engine="0"}} {0}.0',
        'vllm:num_preemptions_total{{engine="0"}} {0}.0',
        'vllm:prefix_cache_queries_total{{engine="0"}} {0}.0',
    ],
)
def test_what_moves_with_a_step_is_progress(site: Site, moving: str) -> None:
    seen = [site.see(metrics(running=1) + moving.format(second // 5 + 1) + "\n") for second in range(200)]
    assert set(seen) == {""}


def test_what_moves_without_a_step_is_no_progress(site: Site) -> None:
    moving = 'vllm:admission_rejections_total{{engine="0"}} {0}.0\nhttp_requests_total{{}} {0}.0\n'
    assert any(site.see(metrics(running=1) + moving.format(second)) for second in range(20))


def test_one_of_two_engines_that_hangs_is_found(site: Site) -> None:
    seen = [site.see(metrics(running=1, tokens=n) + metrics(running=1, engine=1)) for n in range(20)]
    assert any("1 unfinished requests" in why for why in seen)


def test_a_long_step_is_no_hang_until_the_bound_for_steps(site: Site) -> None:
    assert site.until(metrics(running=1, tokens=1), 300, core=0.5) == 20


def test_a_deadlock_after_a_long_step_is_found_as_soon_as_any(site: Site) -> None:
    assert site.until(metrics(running=1, tokens=1), 15, core=0.9) == 0
    assert site.until(metrics(running=1, tokens=1), 30) == 5  # 15 + 5 s is the bound for steps, which comes first
    assert site.see(metrics(running=1, tokens=2)) == ""
    assert site.until(metrics(running=1, tokens=2), 5, core=0.9) == 0
    assert site.until(metrics(running=1, tokens=2), 30) == 7


def test_pollers_of_background_threads_are_not_work(site: Site) -> None:
    assert site.until(metrics(running=1, tokens=1), 300, core=0.02) == 7


@pytest.mark.parametrize("part", ["core", "helper"])
def test_pollers_do_not_add_up_over_steps(site: Site, part: str) -> None:
    assert {site.see(metrics(running=1, tokens=n), **{part: 0.02}) for n in range(2, 12)} == {""}
    assert site.until(metrics(running=1, tokens=11), 300, **{part: 0.02}) == 7


def test_pollers_do_not_add_up_over_answers(site: Site) -> None:
    assert {site.see(metrics(), server=0.02) for _ in range(10)} == {""}
    assert site.until(None, 300, server=0.02) == 7


def test_the_work_of_others_counts_after_a_process_has_ended(site: Site) -> None:
    assert site.see(metrics(running=1, tokens=2), core=50) == ""
    site.cpu[11] = 0
    assert site.until(metrics(running=1, tokens=2), 300, core=0.5) == 20


def test_waiting_for_a_disk_is_slow_and_not_a_deadlock(site: Site) -> None:
    site.state[11] = "D"
    assert site.until(metrics(running=1, tokens=1), 300) == 20


@pytest.mark.parametrize("how", ["helper", "ended"])
def test_a_compiler_gets_its_time_although_the_engine_spins(site: Site, how: str) -> None:
    assert site.until(metrics(running=1, tokens=1), 300, core=1, **{how: 0.5}) == 60


def test_the_step_after_a_compilation_has_its_own_bound(site: Site) -> None:
    assert site.until(metrics(running=1, tokens=1), 30, core=1, helper=0.5) == 0
    assert site.until(metrics(running=1, tokens=1), 300, core=1) == 20


def test_a_server_without_answer_is_a_hang_also_without_requests(site: Site) -> None:
    assert site.until(metrics(), 5) == 0
    assert site.until(None, 30) == 7
    assert "process 10 (vllm serve /model) gives no metrics for 8.0 s" in site.see(None)


def test_a_server_at_work_gets_longer(site: Site) -> None:
    assert site.until(None, 300, server=0.5) == 60


def test_silence_of_the_server_is_counted_from_its_last_answer(site: Site) -> None:
    seen = [site.until(None, 6) or site.see(metrics()) for _ in range(9)]
    assert set(seen) == {""}


@pytest.mark.parametrize("pid", [10, 11])
def test_a_stopped_process_is_a_hang_also_without_requests(site: Site, pid: int) -> None:
    site.state[pid] = "T"
    assert site.until(metrics(), 30) == 7
    assert f"process {pid}" in site.see(metrics())


def test_a_process_that_was_stopped_for_a_moment_is_not(site: Site) -> None:
    for _ in range(9):
        site.state[11] = "T"
        assert site.until(metrics(), 6) == 0
        site.state[11] = "S"
        assert site.see(metrics()) == ""


def test_a_stopped_process_is_found_although_another_spins(site: Site) -> None:
    site.state[11] = "T"
    assert site.until(metrics(running=1, tokens=1), 30, server=1, helper=1) == 7


def test_an_engine_that_starts_has_its_own_bound(parts: Any) -> None:
    assert Site(parts).until(None, 300) == 100


def test_a_server_that_drains_may_go_silent(site: Site) -> None:
    site.judge.draining = True
    assert site.until(None, 300) == 0
    assert site.until(metrics(running=1), 30) == 8


def test_a_server_that_lost_its_core_ends_by_itself(parts: Any) -> None:
    server = sys.modules["look"].Process(10, 1, "S", 1.0, 0.0, "vllm serve")
    dead = sys.modules["look"].Process(11, 10, "Z", 1.0, 0.0, "")
    look = parts.Look.at(parts.engines_in(metrics(running=1)), [server, dead], 10)
    judge = Site(parts).judge
    assert [bool(judge.judge(look, 1)) for _ in range(62)].index(True) == 60


def test_processes_without_names_are_all_cores(parts: Any) -> None:
    unnamed = [sys.modules["look"].Process(pid, 1, "S", 0.0, 0.0, "python -c spawn") for pid in (10, 11, 12)]
    look = parts.Look.at({}, unnamed, 10)
    assert [process.pid for process in look.cores] == [11, 12] and look.helpers == []


def remembered(parts: Any, file: Path, kills: object, boot: str | None = None) -> float:
    file.write_text(json.dumps({"boot": boot or parts.BOOT.read_text().strip(), "kills": kills}))
    return float(parts.Kills(file, 3, 600).add())


def test_kills_of_the_window_count(parts: Any, tmp_path: Path) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    file = tmp_path / "kills.json"
    assert remembered(parts, file, [now - 500, now - 400]) == pytest.approx(100, abs=5)
    assert remembered(parts, file, [now - 601, now - 400]) == 0
    assert remembered(parts, file, [now - 590, now - 500, now - 400]) == pytest.approx(100, abs=5)


def test_kills_of_another_boot_or_of_no_sense_do_not_count(parts: Any, tmp_path: Path) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    file = tmp_path / "kills.json"
    assert remembered(parts, file, [now - 5, now - 4], boot="another") == 0
    assert remembered(parts, file, [now + 500, now + 400]) == 0
    assert remembered(parts, file, "nonsense") == 0
    file.write_text("[")
    assert parts.Kills(file, 3, 600).add() == 0
    assert parts.Kills(tmp_path / "missing/kills.json", 3, 600).add() == 0
    assert parts.Kills(file, 0, 600).add() == 0
