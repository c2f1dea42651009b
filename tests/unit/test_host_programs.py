"""A program that waits in the kernel outlives SIGKILL: whoever asked it has an answer all the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from loading import ROOT, loaded

UTILS = ROOT / "playbooks/module_utils"
SLOW = "#!/bin/sh\necho asked >>{log}\nexec sleep 15\n"


@pytest.fixture(autouse=True)
def utils() -> Iterator[None]:
    """Our module_utils beside Ansible's own, as on a host."""
    ansible.module_utils.__path__.append(str(UTILS))
    yield
    ansible.module_utils.__path__.remove(str(UTILS))
    for name in (file.stem for file in UTILS.glob("*.py")):
        sys.modules.pop(f"ansible.module_utils.{name}", None)
        vars(ansible.module_utils).pop(name, None)


@pytest.fixture
def unkillable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs that are told to go and stay, as one does that the driver keeps in state D."""
    started: list[subprocess.Popen[Any]] = []

    class Stays(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            started.append(self)

        def kill(self) -> None:
            """Nothing happens."""

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", Stays)
        yield
    for process in started:
        subprocess.Popen.kill(process)
        process.wait()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A line for each time that nvidia-smi or ip was started; both hang."""
    found = tmp_path / "log"
    for name in ("nvidia-smi", "ip"):
        (tmp_path / name).write_text(SLOW.format(log=found))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return found


@pytest.mark.usefixtures("unkillable")
def test_a_driver_that_keeps_nvidia_smi_is_asked_once(log: Path) -> None:
    module: ModuleType = loaded("playbooks/library/gpu_facts.py")
    began = time.monotonic()
    found = module.look(1)
    assert time.monotonic() - began < 6
    assert "timeout" in {problem["code"] for problem in found["problems"]}
    assert log.read_text().split() == ["asked"]


@pytest.mark.usefixtures("unkillable", "log")
def test_any_other_program_is_left_behind_too() -> None:
    module: ModuleType = loaded("playbooks/library/host_hardware.py")
    began = time.monotonic()
    assert module.said(1, "ip", "-j", "addr") == ""
    assert time.monotonic() - began < 6


def test_after_the_first_silence_nothing_more_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = loaded("playbooks/library/gpu_facts.py")
    asked: list[str] = []

    def run(_timeout: int, *words: str) -> tuple[str, str]:
        asked.append(words[0])
        return ("something else", "") if words[0] == "-q" else ("", "timeout")

    monkeypatch.setattr(module, "run", run)
    found = module.look(1)
    assert [word.split("=")[0] for word in asked] == ["-q", "--query-gpu"]
    assert "timeout" in {problem["code"] for problem in found["problems"]}


def test_what_a_program_says(tmp_path: Path) -> None:
    programs = loaded("playbooks/module_utils/host_programs.py")
    script = "import sys, os; print(os.environ['A']); print('no', file=sys.stderr); sys.exit(3)"
    words = [sys.executable, "-c", script]
    assert programs.ask(words, 20, env={"A": "a"}) == (3, "a\n")
    assert sorted(programs.ask(words, 20, env={"A": "a"}, both=True)[1].split()) == ["a", "no"]
    with pytest.raises(OSError, match="nowhere"):
        programs.ask([str(tmp_path / "nowhere")], 20)
    with pytest.raises(subprocess.TimeoutExpired):
        programs.ask(["sleep", "20"], 0.2)
