"""The container toolkit's role: engines that Docker could not start, and whether the devices are declared before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from loading import loaded

ROLE = Path(__file__).resolve().parents[2] / "roles/nvidia_container_toolkit"
FAILED = '"could not select device driver \\"cdi\\" with capabilities: [[]]"'
DOCKER = """#!/bin/sh
echo "$@" >> {folder}/calls
case $1 in
  ps) [ ! -e {folder}/down ] && echo some ids ;;
  inspect) cat {folder}/inspected ;;
  start) [ ! -e {folder}/refuses ] ;;
esac
"""


def started(folder: Path, *inspected: str) -> tuple[int, list[str]]:
    """Exit code of the script, and what it has started, where containers are as these lines say."""
    (folder / "docker").write_text(DOCKER.format(folder=folder))
    (folder / "docker").chmod(0o755)
    (folder / "inspected").write_text("".join(f"{line}\n" for line in inspected))
    words = ["sh", str(ROLE / "files/start_engines.sh"), "0"]
    done = subprocess.run(words, env={"PATH": f"{folder}:/usr/bin:/bin"}, capture_output=True, timeout=30, check=False)
    calls = (folder / "calls").read_text().splitlines()
    assert calls[0] == "ps --all --quiet --no-trunc --filter label=deployctl.role=vllm"
    return done.returncode, [name for call in calls if call.startswith("start ") for name in call.split()[1:]]


def test_engines_that_docker_could_not_start_are_started(tmp_path: Path) -> None:
    lines = (
        f"/chat-{n} exited {policy} {FAILED}" for n, policy in enumerate(["always", "unless-stopped", "on-failure"])
    )
    assert started(tmp_path, *lines) == (0, ["chat-0", "chat-1", "chat-2"])


@pytest.mark.parametrize(
    "line",
    [
        '/chat exited unless-stopped ""',  # stopped by hand
        '/chat running unless-stopped ""',
        f"/chat running unless-stopped {FAILED}",
        f"/chat created unless-stopped {FAILED}",  # never ran: a change that did not come so far
        f"/chat dead unless-stopped {FAILED}",
        f"/chat exited no {FAILED}",
        f"/chat exited  {FAILED}",  # older engines write no policy so
        f"/chat-previous exited unless-stopped {FAILED}",
    ],
)
def test_what_is_down_on_purpose_stays_down(tmp_path: Path, line: str) -> None:
    assert started(tmp_path, line) == (0, [])


def test_a_start_that_fails_is_told_and_so_is_a_docker_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "refuses").touch()
    assert started(tmp_path, f"/chat exited always {FAILED}") == (1, ["chat"])
    (tmp_path / "down").touch()
    (tmp_path / "calls").unlink()
    assert started(tmp_path) == (1, [])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import ansible.module_utils

    parts = loaded("playbooks/module_utils/host_parts.py")
    monkeypatch.setitem(sys.modules, "ansible.module_utils.host_parts", parts)
    monkeypatch.setattr(ansible.module_utils, "host_parts", parts, raising=False)
    found: ModuleType = loaded(ROLE / "library/nvidia_container_toolkit_state.py")
    return found


@pytest.mark.parametrize(
    ("shown", "order"),
    [
        # 1.20.0, as it comes and with the file of the role.
        ("Before=shutdown.target multi-user.target\nAfter=basic.target\n", (False, True)),
        ("Before=docker.service shutdown.target\nAfter=basic.target\n", (True, True)),
        # 1.19.0 waits for the target that Docker is part of: before Docker would be a circle.
        ("Before=shutdown.target\nAfter=basic.target multi-user.target\n", (False, False)),
        ("", (False, True)),
    ],
)
def test_the_order_of_the_service(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, shown: str, order: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(module, "said", lambda *_words: shown)
    assert tuple(module.order()[key] for key in ("first", "may_be_first")) == order
