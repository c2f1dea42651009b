"""What happens to engines, to what stands beside them, and to the host's Docker, while clients ask."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
import requests
from stack import engine_core, instances
from trials import Faults, both_up, fill, trial

VICTIM = "vllm-tiny-chat-0"
# Started here, and left running.
DAEMONS: list[subprocess.Popen[bytes]] = []


def pid_of(faults: Faults, name: str) -> int:
    return int(faults.engine.containers.get(name).attrs["State"]["Pid"])


def gone_then_back(faults: Faults, pid: int) -> Callable[[], bool]:
    """Whole again: the process that was hit has ended, another engine runs, and both replicas take requests."""

    def back() -> bool:
        if Path(f"/proc/{pid}").exists():
            return False
        try:
            return bool(engine_core(instances(faults.engine)[VICTIM])) and both_up()
        except (AssertionError, KeyError, docker.errors.APIError):
            return False

    return back


def test_container_is_killed(faults: Faults) -> None:
    pid = pid_of(faults, VICTIM)
    with trial(faults, "kill -9 container") as made:
        made.strike(lambda: os.kill(pid, signal.SIGKILL))
        made.until(gone_then_back(faults, pid))


def test_container_is_restarted_by_hand(faults: Faults) -> None:
    pid = pid_of(faults, VICTIM)
    with trial(faults, "docker restart of an engine, by hand", chats=6) as made:
        made.strike(lambda: subprocess.run(["docker", "restart", VICTIM], check=True, capture_output=True))
        made.until(gone_then_back(faults, pid))


def test_engine_core_is_killed(faults: Faults) -> None:
    pid = engine_core(instances(faults.engine)[VICTIM])
    with trial(faults, "kill -9 engine core") as made:
        made.strike(lambda: os.kill(pid, signal.SIGKILL))
        made.until(gone_then_back(faults, pid))


def test_engine_core_hangs(faults: Faults) -> None:
    pid = engine_core(instances(faults.engine)[VICTIM])
    with trial(faults, "SIGSTOP engine core", chats=4, streams=2) as made:
        made.strike(lambda: os.kill(pid, signal.SIGSTOP))
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        found = time.monotonic() - made.struck
        made.until(gone_then_back(faults, pid))
    assert found < 10, f"found after {found:.1f} s"


def test_engine_runs_out_of_memory(faults: Faults) -> None:
    container = instances(faults.engine)[VICTIM]
    pid = engine_core(container)
    before = container.stats(stream=False)["memory_stats"]["usage"]
    with trial(faults, "out of memory: the kernel kills the engine") as made:
        container.update(mem_limit=int(before * 1.02), memswap_limit=int(before * 1.02))

        def grow() -> None:
            # The engine is the largest process of its container, so it is the one that the kernel takes.
            container.exec_run(["python3", "-c", "x = bytearray(600 * 2**20); import time; time.sleep(2)"], detach=True)

        made.strike(grow)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{pid}").exists(), "the kernel took something else"
        container.update(mem_limit=2**40, memswap_limit=2**40)
        made.until(gone_then_back(faults, pid))


def daemon() -> int:
    return int(subprocess.run(["pidof", "dockerd"], capture_output=True, text=True, check=True).stdout.split()[0])


def test_docker_daemon_restarts(faults: Faults) -> None:
    pid = daemon()
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]

    def restart() -> None:
        if Path("/run/systemd/system").is_dir():
            subprocess.run(["systemctl", "restart", "docker"], check=True)
            return
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            time.sleep(0.1)
        with Path("/tmp/dockerd-faults.log").open("w") as log:
            DAEMONS.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    def answers() -> bool:
        done = subprocess.run(["docker", "ps", "--quiet"], capture_output=True, text=True, check=False)
        return done.returncode == 0 and len(done.stdout.split()) >= 4 and both_up()

    with trial(faults, "docker daemon restart") as made:
        made.strike(restart)
        made.until(answers)


def test_haproxy_is_reloaded_again_and_again(faults: Faults) -> None:
    haproxy = faults.engine.containers.get("haproxy")
    with trial(faults, "HAProxy reload storm (20 in 10 s)") as made:

        def storm() -> None:
            for _ in range(20):
                haproxy.kill(signal="SIGUSR2")
                time.sleep(0.5)

        made.strike(storm)
        made.until(both_up)


def test_haproxy_is_killed(faults: Faults) -> None:
    pid = pid_of(faults, "haproxy")
    steps = faults.trial("kill -9 HAProxy (its clients see a broken connection)")
    made = next(steps)
    made.strike(lambda: os.kill(pid, signal.SIGKILL))

    def back() -> bool:
        # The old process may still answer while it dies.
        answers = bool(requests.get("http://127.0.0.1:8404/;csv", timeout=1))
        return answers and pid_of(faults, "haproxy") not in (0, pid)

    made.until(back, limit=20)
    assert next(steps, None) is None
    assert made.recovered is not None and made.recovered < 2
    wrong = [*made.load.chats.failed, *made.load.streams.failed]
    assert all("Connection" in text or "broken" in text or "RemoteDisconnected" in text for text in wrong), wrong[:3]


def test_traces_are_away(faults: Faults) -> None:
    pid = pid_of(faults, "jaeger")
    with trial(faults, "Jaeger killed") as made:
        made.strike(lambda: os.kill(pid, signal.SIGKILL))
        made.until(lambda: jaeger_answers(faults), limit=60)


def jaeger_answers(faults: Faults) -> bool:
    return requests.get(faults.site.client_env()["JAEGER_URL"] + "/api/v3/services", timeout=2).status_code == 200


def test_traces_have_no_room(faults: Faults) -> None:
    with trial(faults, "Jaeger's disk full") as made:
        file = made.strike(lambda: fill(faults.site.root / "traces"))
        time.sleep(15)
        file.unlink()
        made.until(lambda: jaeger_answers(faults), limit=60)


def test_network_of_an_engine_is_cut(faults: Faults) -> None:
    container = instances(faults.engine)[VICTIM]
    network = faults.engine.networks.get("deployctl")
    with trial(faults, "network of an engine cut for 20 s") as made:
        made.strike(lambda: network.disconnect(container))
        time.sleep(20)
        network.connect(container)
        made.until(both_up)


def clock_can_be_set() -> bool:
    """Setting it to what it says needs the same right as setting it."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except PermissionError:
        return False
    return True


@pytest.mark.skipif(
    os.environ.get("FAULTS_CLOCK") == "0" or not clock_can_be_set(), reason="FAULTS_CLOCK=0, or the clock cannot be set"
)
def test_clock_jumps(faults: Faults) -> None:
    # Back first: what looks at this machine's clock from outside is early meanwhile, and never late.
    with trial(faults, "clock jumps one hour back, and ahead again") as made:
        begun, started = time.time(), time.monotonic()
        made.strike(lambda: time.clock_settime(time.CLOCK_REALTIME, begun - 3600))
        try:
            time.sleep(15)
        finally:
            time.clock_settime(time.CLOCK_REALTIME, begun + time.monotonic() - started)
        made.until(both_up)
