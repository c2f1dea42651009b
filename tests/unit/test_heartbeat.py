"""The heartbeat as the parent of real processes, a double of an engine: it finds what hangs, and serves the rest."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HEARTBEAT = Path(__file__).resolve().parents[2] / "roles/vllm/files/heartbeat/heartbeat.py"
DOUBLE = Path(__file__).with_name("heartbeat_double.py")
HANGS = 70
PATIENCE = 60  # seconds until a test gives up on a process


def adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


class Engine:
    """A heartbeat with the double as its child, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.state = folder / "kills.json"

    def start(self, *options: str, command: tuple[str, ...] = (), adopts: bool = False) -> None:
        """Start it; `adopts`: orphans below it become its children, as they do those of a container's process 1."""
        double = (sys.executable, str(DOUBLE), str(self.folder), str(self.port))
        given = ("--url", f"http://127.0.0.1:{self.port}/metrics", "--interval", "0.1", "--state", str(self.state))
        self.log = self.folder / "log"
        with self.log.open("w") as log:
            # A group of its own: the kernel hangs up groups that it finds stopped and without a parent.
            words = [sys.executable, str(HEARTBEAT), *given, *options, "--", *(command or double)]
            adopt = adopt_orphans if adopts else None
            self.process = subprocess.Popen(words, stderr=log, process_group=0, preexec_fn=adopt)

    def wait_for(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def number(self, name: str) -> int:
        self.wait_for(lambda: (self.folder / name).is_file() and bool((self.folder / name).read_text().strip()))
        return int((self.folder / name).read_text())

    def looks(self) -> int:
        return (self.folder / "looks").stat().st_size if (self.folder / "looks").exists() else 0

    def looked(self, times: int) -> None:
        """Wait until the heartbeat has asked so many times more."""
        before = self.looks()
        self.wait_for(lambda: self.looks() >= before + times or self.process.poll() is not None)

    def mode(self, mode: str) -> None:
        (self.folder / "mode.new").write_text(mode)
        (self.folder / "mode.new").replace(self.folder / "mode")

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    @property
    def server(self) -> int:
        """Process number of the double's server, which is the heartbeat's child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    core = made.folder / "core"
    for pid in [made.process.pid, *([int(core.read_text())] if core.exists() else [])]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), signal.SIGKILL) if pid != made.process.pid else made.process.kill()
    made.process.wait()


def test_a_stopped_core_and_all_that_belongs_to_it_is_killed(engine: Engine) -> None:
    engine.start("--seconds", "3")
    engine.looked(3)
    core, server = engine.number("core"), engine.server
    session = os.getsid(core)
    os.kill(core, signal.SIGSTOP)
    assert engine.end() == HANGS
    engine.wait_for(lambda: gone(core) and gone(server))
    assert session == server != os.getsid(0)
    log = engine.log.read_text()
    # Both are true of it; on a loaded machine the second may be seen first.
    assert f"the engine hangs: process {core} " in log and f"process {core} T" in log
    assert "stopped for" in log or "made no step for" in log


def test_a_stopped_server_is_killed(engine: Engine) -> None:
    engine.start("--seconds", "3")
    engine.looked(3)
    os.kill(engine.server, signal.SIGSTOP)
    assert engine.end() == HANGS


def test_a_core_in_a_deadlock_is_killed(engine: Engine) -> None:
    engine.start("--seconds", "3")
    engine.looked(3)
    engine.mode("wait")
    assert engine.end() == HANGS
    assert "2 unfinished requests" in engine.log.read_text()
    assert "no CPU used" in engine.log.read_text()


def test_a_core_that_computes_is_left_until_the_bound_for_steps(engine: Engine) -> None:
    engine.start("--seconds", "3", "--spin-seconds", "8")
    engine.looked(3)
    engine.mode("spin")
    engine.looked(40)
    assert engine.process.poll() is None, engine.log.read_text()
    assert engine.end() == HANGS
    assert ", CPU used" in engine.log.read_text()


@pytest.mark.parametrize("mode", ["step", "idle"])
def test_a_core_that_steps_or_rests_is_left_alone(engine: Engine, mode: str) -> None:
    engine.start("--seconds", "3")
    engine.mode(mode)
    engine.looked(60)
    assert engine.process.poll() is None, engine.log.read_text()


def test_time_in_which_nobody_looked_does_not_count(engine: Engine) -> None:
    engine.start("--seconds", "5")
    engine.looked(3)
    engine.mode("wait")
    engine.looked(2)
    os.kill(engine.process.pid, signal.SIGSTOP)
    time.sleep(5.5)
    os.kill(engine.process.pid, signal.SIGCONT)
    engine.looked(3)
    engine.mode("step")
    engine.looked(10)
    assert engine.log.read_text() == ""
    assert engine.process.poll() is None, engine.log.read_text()


@pytest.mark.parametrize("mode", ["nonsense", "nothing"])
def test_metrics_that_tell_nothing_end_no_engine(engine: Engine, mode: str) -> None:
    engine.mode(mode)
    engine.start("--seconds", "2", "--start-seconds", "2")
    engine.looked(40)
    assert engine.process.poll() is None, engine.log.read_text()
    assert ("cannot look at the engine" in engine.log.read_text()) is (mode == "nonsense")


def test_an_engine_that_never_comes_up_is_killed(engine: Engine) -> None:
    engine.start("--start-seconds", "1", command=("sleep", "600"))
    assert engine.end() == HANGS
    assert "not up after" in engine.log.read_text()


def announced(engine: Engine) -> None:
    engine.process.send_signal(signal.SIGWINCH)
    engine.wait_for(lambda: "announced" in engine.log.read_text())
    engine.process.send_signal(signal.SIGTERM)


def test_an_announced_stop_waits_for_what_runs(engine: Engine) -> None:
    engine.start()
    engine.looked(1)
    core = engine.number("core")
    announced(engine)
    engine.looked(10)
    assert engine.process.poll() is None and not gone(core), engine.log.read_text()
    engine.mode("idle")
    assert engine.end() == 128 + signal.SIGTERM
    engine.wait_for(lambda: gone(core))
    assert not (engine.folder / "signals").exists()  # it would have answered what still came with nothing
    assert "nothing runs in the engine any more" in engine.log.read_text()


def test_a_hang_ends_the_wait_of_an_announced_stop(engine: Engine) -> None:
    engine.start("--seconds", "3")
    engine.looked(1)
    announced(engine)
    engine.mode("wait")
    assert engine.end() == HANGS


def test_an_engine_without_statistics_is_told_to_stop(engine: Engine) -> None:
    engine.mode("nothing")
    engine.start()
    engine.looked(1)
    announced(engine)
    assert engine.end() == 0
    # The server tells its core when it is time; a core that got the signal too would end under running requests.
    assert (engine.folder / "signals").read_text() == "SIGTERM\ncore runs\n"


def test_an_announced_stop_ends_an_engine_that_is_not_up(engine: Engine) -> None:
    engine.start(command=("sh", "-c", f"echo 1 > {engine.folder}/core; exec sleep 600"))
    engine.wait_for(lambda: (engine.folder / "core").exists())
    (engine.folder / "core").unlink()
    announced(engine)
    assert engine.end() == 128 + signal.SIGTERM


def test_other_signals_are_handed_on(engine: Engine) -> None:
    engine.start()
    engine.looked(1)
    engine.process.send_signal(signal.SIGUSR1)
    engine.wait_for(lambda: (engine.folder / "signals").exists())
    assert (engine.folder / "signals").read_text() == "SIGUSR1\n"


def test_a_stop_that_nobody_announced_kills_the_engine_before_it_answers_with_nothing(engine: Engine) -> None:
    engine.start()
    engine.looked(1)
    core, server = engine.number("core"), engine.server
    engine.process.send_signal(signal.SIGTERM)
    assert engine.end() == 128 + signal.SIGTERM
    engine.wait_for(lambda: gone(core) and gone(server))
    assert not (engine.folder / "signals").exists()  # as it would have handled one
    assert "no stop was announced" in engine.log.read_text()
    assert not engine.state.exists()  # it counts for no hang


def test_an_announcement_is_not_for_ever(engine: Engine) -> None:
    engine.start("--announced-seconds", "0.1")
    engine.looked(1)
    engine.process.send_signal(signal.SIGWINCH)
    engine.wait_for(lambda: "announced" in engine.log.read_text())
    time.sleep(0.2)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.end() == 128 + signal.SIGTERM


def test_the_remains_of_orphans_are_taken_by_process_1(engine: Engine) -> None:
    engine.start(adopts=True)
    engine.looked(5)
    orphan = engine.number("orphan")
    engine.wait_for(lambda: not Path(f"/proc/{orphan}").exists())
    assert engine.process.poll() is None, engine.log.read_text()


@pytest.mark.parametrize("code", [0, 3])
def test_the_engines_exit_code_is_passed_on(engine: Engine, code: int) -> None:
    engine.start()
    engine.looked(1)
    (engine.folder / "exit.new").write_text(str(code))
    (engine.folder / "exit.new").replace(engine.folder / "exit")
    assert engine.end() == code
    assert not engine.state.exists()


def test_signals_are_not_blocked_in_the_engine(engine: Engine) -> None:
    engine.start(command=("sh", "-c", f"grep SigBlk /proc/self/status > {engine.folder}/blocked"))
    assert engine.end() == 0
    assert int((engine.folder / "blocked").read_text().split()[1], 16) == 0


def test_too_many_kills_keep_the_engine_off_until_it_is_asked_to_stop(engine: Engine) -> None:
    for _ in range(2):
        engine.start("--start-seconds", "0.2", "--kills", "3", command=("sleep", "600"))
        assert engine.end() == HANGS
    engine.start("--start-seconds", "0.2", "--kills", "3", command=("sleep", "600"))
    engine.wait_for(lambda: "stays off for" in engine.log.read_text())
    assert engine.process.poll() is None, engine.log.read_text()
    assert len(json.loads(engine.state.read_text())["kills"]) == 3
    engine.process.send_signal(signal.SIGTERM)
    assert engine.end() == HANGS
