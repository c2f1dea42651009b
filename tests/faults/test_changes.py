"""Changes that go wrong, or that are cut short, while clients ask."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stack import REPO, ids, instances, shipped
from trials import Faults, both_up, change, fill

# The steps of a swap, as the vllm role names them.
STEPS = (
    "Old instance is measured",
    "Old instance is drained",
    "Old instance is stopped and set aside",
    "New instance runs",
    "New instance generates tokens",
    "New instance answers through the gateway",
    "New instance takes requests",
)


def task_began(title: str) -> Callable[[str], bool]:
    """Whether events tell of a task whose name begins like this."""

    def said(events: str) -> bool:
        lines = (json.loads(line) for line in events.splitlines() if line.endswith("}"))
        tasks = [line for line in lines if line["event"] in ("playbook_on_task_start", "runner_on_start")]
        return any(str(line.get("task", "")).startswith(title) for line in tasks)

    return said


def awaited(faults: Faults, known: set[Path], run: subprocess.Popen[Any], said: Callable[[str], bool]) -> None:
    """Wait until an event of a run that has just begun says so."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and run.poll() is None:
        for folder in set(faults.site.runs) - known:
            events = folder / "events.jsonl"
            if events.exists() and said(events.read_text()):
                return
        time.sleep(0.05)
    raise AssertionError("the swap ended before it came to that step")


def killed_when(faults: Faults, said: Callable[[str], bool]) -> None:
    """Start `swap` and kill the whole control node's part of it, as if the machine had gone, once an event says so."""
    known = set(faults.site.runs)
    run = subprocess.Popen(
        ["deployctl", "swap", str(faults.site.inventory)],
        cwd=REPO, env=faults.site.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        awaited(faults, known, run, said)
    finally:
        kill_tree(run.pid)
        run.wait(20)


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it; Ansible's workers have sessions of their own."""
    below = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                below.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                    int(entry.name)
                )
            except OSError:
                continue
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        waiting += below.get(one, [])
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_control_node_dies_in_the_middle_of_a_swap(faults: Faults, step: int) -> None:
    length = 1024 + 64 * step
    faults.site.write_models(shipped(context_length=length))
    with change(faults, f"control node killed at: {STEPS[step]}", streams=0) as made:
        made.strike(lambda: killed_when(faults, task_began(STEPS[step])))
        assert "ACCEPTED" in faults.site.deployctl("swap")
        made.until(both_up)
    for container in instances(faults.engine).values():
        assert f"--max-model-len {length}" in " ".join(container.attrs["Args"])
    assert not [name for name in ids(faults.engine) if name.endswith("-previous")]


def test_another_change_over_one_that_was_stopped(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    accepted = ids(faults.engine)
    faults.site.write_models(shipped(context_length=1344))
    with change(faults, "a bad change over one that was stopped", streams=0) as made:
        made.strike(lambda: killed_when(faults, task_began("Old instance is drained: tiny-chat-1 (2/2")))
        faults.site.write_models(shipped(engine_args={"quantization": "awq"}))
        assert "did not come up" in faults.site.deployctl("swap", code=3)
        made.until(both_up)
    assert ids(faults.engine) == accepted
    faults.site.write_models(shipped())


def refused_and_restored(faults: Faults, name: str, models: list[dict[str, Any]], *args: str, why: str) -> None:
    """A change that is no good: it ends with 3, and the old containers serve."""
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    before = ids(faults.engine)
    faults.site.write_models(models)
    with change(faults, name) as made:
        printed = made.strike(lambda: faults.site.deployctl("swap", *args, code=3))
        made.until(both_up)
    assert why in printed
    assert not Path("/var/lib/deployctl/operator.json").exists()
    assert ids(faults.engine) == before
    faults.site.write_models(shipped())


def test_new_model_crashes(faults: Faults) -> None:
    refused_and_restored(
        faults, "new model crashes", shipped(engine_args={"quantization": "awq"}), why="did not come up"
    )


def test_new_model_never_gets_healthy(faults: Faults) -> None:
    refused_and_restored(
        faults,
        "new model never gets healthy",
        shipped(context_length=1088),
        "-e",
        "vllm_start_timeout_seconds=3",
        why="did not come up",
    )


def test_new_model_answers_garbage(faults: Faults) -> None:
    folder = faults.site.root / "broken-model"
    good = next((faults.site.root / "models").glob("synthetic*tiny-chat*"))
    image = next(iter(instances(faults.engine).values())).attrs["Config"]["Image"]
    subprocess.run(["cp", "-r", str(good), str(folder)], check=True)
    script = (
        "import glob, torch; from safetensors.torch import load_file, save_file\n"
        "for name in glob.glob('/m/*.safetensors'):\n"
        "    parts = {k: torch.full_like(v, float('nan')) for k, v in load_file(name).items()}\n"
        "    save_file(parts, name, metadata={'format': 'pt'})\n"
    )
    subprocess.run(
        ["docker", "run", "--rm", "-u", "0:0", "-v", f"{folder}:/m", "--entrypoint", "python3", image, "-c", script],
        check=True,
    )
    for left in folder.glob(".deployctl*"):
        left.unlink()
    refused_and_restored(
        faults, "new model answers garbage with 200", shipped(source=str(folder)), why="did not come up"
    )


def test_new_model_is_slow(faults: Faults) -> None:
    # Any model is too slow for this bound: what is tried is what follows from it.
    bound = json.dumps({"vllm_canary_slowdown_max": 0.05, "vllm_canary_ttft_floor_ms": 0})
    refused_and_restored(faults, "new model is slow", shipped(context_length=1152), "-e", bound, why="did not come up")


def test_another_haproxy_takes_over(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    running = faults.engine.containers.get("haproxy")
    image = running.commit("haproxy-trial", "next", changes="LABEL deployctl.trial=next", pause=False)
    other = [{"name": "haproxy", "reference": "haproxy-trial:next", "id": image.id}]
    with change(faults, "another HAProxy takes over", pause=0.2) as made:
        made.strike(lambda: faults.site.deployctl("up", "-e", json.dumps({"images_overrides": other})))
        made.until(both_up)
    assert faults.engine.containers.get("haproxy").image.id == image.id
    with change(faults, "the HAProxy before takes over again", pause=0.2) as made:
        made.strike(lambda: faults.site.deployctl("up"))
        made.until(both_up)
    assert faults.engine.containers.get("haproxy").image.id == running.image.id
    assert not [c for c in faults.engine.containers.list(all=True) if c.name == "haproxy-previous"]
    faults.engine.images.remove("haproxy-trial:next", force=True)


def with_second() -> list[dict[str, Any]]:
    return [*shipped(), {"name": "second", "source": "synthetic:tiny-chat-long"}]


def test_model_store_has_no_room(faults: Faults) -> None:
    # Another trial may have brought it already, and what is there needs no room.
    for brought in (faults.site.root / "models").glob("*long*"):
        shutil.rmtree(brought)
    faults.site.write_models(with_second())
    before = ids(faults.engine)
    with change(faults, "disk full in the model store") as made:
        file = made.strike(lambda: fill(faults.site.root / "models"))
        printed = faults.site.deployctl("up", code=None)
        assert "ACCEPTED" not in printed
        file.unlink()
        assert "ACCEPTED" in faults.site.deployctl("up")
        made.until(both_up)
    assert {name: kept for name, kept in ids(faults.engine).items() if name in before} == before
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


def test_run_folder_has_no_room(faults: Faults) -> None:
    faults.site.write_models(shipped(context_length=1216))
    with change(faults, "disk full in the run folder") as made:
        file = made.strike(lambda: fill(faults.site.root / "runs"))
        printed = faults.site.deployctl("up", code=None)
        assert "ACCEPTED" not in printed
        file.unlink()
        assert "ACCEPTED" in faults.site.deployctl("up")
        made.until(both_up)
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


def test_run_folder_fills_up_in_the_middle_of_a_swap(faults: Faults) -> None:
    """The engines are changed to the end all the same; only the verdict has no place to be written."""
    faults.site.write_models(shipped(context_length=1280))
    with change(faults, "disk full in the run folder, in mid-swap") as made:
        known = set(faults.site.runs)
        run = faults.site.start("swap")
        awaited(faults, known, run, task_began("Old instance is drained"))
        file = made.strike(lambda: fill(faults.site.root / "runs"))
        run.communicate(timeout=900)
        new = [one for name, one in instances(faults.engine).items() if not name.endswith("-previous")]
        assert ["--max-model-len 1280" in " ".join(one.attrs["Args"]) for one in new] == [True, True]
        file.unlink()
        assert "ACCEPTED" in faults.site.deployctl("up")
        made.until(both_up)
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


def test_model_download_was_cut_off(faults: Faults) -> None:
    faults.site.write_models(with_second())
    faults.site.deployctl("up", "-t", "model_store")
    weights = max((faults.site.root / "models").glob("*long*/*.safetensors"), key=lambda file: file.stat().st_size)
    os.truncate(weights, weights.stat().st_size // 2)
    with change(faults, "truncated model files") as made:
        assert "ACCEPTED" in made.strike(lambda: faults.site.deployctl("up"))
        made.until(both_up)
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


@pytest.mark.parametrize("where", ["one checkout", "two machines"])
def test_two_operators_at_once(faults: Faults, where: str) -> None:
    faults.site.write_models(shipped(context_length=1280))
    with change(faults, f"two operators at once, {where}") as made:
        first = made.strike(lambda: faults.site.start("swap"))
        if where == "one checkout":
            time.sleep(3)
            assert str(first.pid) in faults.site.deployctl("swap", code=2)
        else:
            # As from another machine: nothing is shared but the hosts.
            while not Path("/var/lib/deployctl/operator.json").exists() and first.poll() is None:
                time.sleep(0.1)
            other = {**faults.site.env(), "DEPLOYCTL_RUNS_DIR": str(faults.site.root / "elsewhere")}
            done = subprocess.run(
                ["deployctl", "swap", str(faults.site.inventory)],
                cwd=REPO, env=other, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 2, done.stdout[-2000:]
            assert "another run works on this host" in done.stdout
        printed, _ = first.communicate(timeout=600)
        assert first.returncode == 0, printed[-2000:]
        made.until(both_up)
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
