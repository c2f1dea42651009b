"""How an instance's container gets its heartbeat: what it starts, what it mounts, and that a change of it rolls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import loaded

ROLE = Path(__file__).resolve().parents[2] / "roles/vllm"


@pytest.fixture
def role() -> Any:
    return loaded(ROLE / "filter_plugins/vllm_container.py")


def container(role: Any, kind: str = "cpu", **changed: Any) -> dict[str, Any]:
    instance: dict[str, Any] = {"name": "m-0", "container": "vllm-m-0", "model": "m", "pool": "m"}
    instance |= {"device_kind": kind, "devices": [0]}
    instance |= {"port": 8100, "publish_address": "127.0.0.1", "served_names": ["m"], "engine_args": []}
    names = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__vllm_settings"]
    settings: dict[str, Any] = dict.fromkeys(names, "1")
    settings |= {"store_models": {}, "env": {}, "args": [], "files_dir": "/files", "heartbeat": True}
    settings |= {"cpus": [], "cpu_places": 0}
    settings |= {"heartbeat_options": {"seconds": 7, "kills": 3}, "heartbeat_spin_seconds": {"cpu": 120, "gpu": 8}}
    made: dict[str, Any] = role.vllm_container(instance, settings | changed)
    return made


def test_the_engine_is_the_heartbeats_child(role: Any) -> None:
    made = container(role)
    options = ["--seconds", "7", "--kills", "3", "--spin-seconds", "120"]
    assert made["entrypoint"] == ["python3", "/deployctl/heartbeat.py", *options, "--", "vllm", "serve"]
    assert made["command"][0] == "/model"
    assert f"{made['heartbeat_dir']}:/deployctl:ro" in made["volumes"]


def test_a_gpu_has_a_bound_of_its_own_for_steps(role: Any) -> None:
    made = container(role, "nvidia")
    assert made["entrypoint"][made["entrypoint"].index("--spin-seconds") + 1] == "8"


def test_without_it_the_engine_is_alone(role: Any) -> None:
    made = container(role, heartbeat=False)
    assert made["entrypoint"] == ["vllm", "serve"]
    assert not [volume for volume in made["volumes"] if "/deployctl" in volume]


def test_a_change_of_the_heartbeat_or_its_options_is_a_change_of_the_container(role: Any, tmp_path: Path) -> None:
    files = role.HEARTBEAT
    assert [file.name for file in files] == ["first_token.py", "heartbeat.py", "judge.py", "look.py"]
    before = container(role)
    assert container(role, heartbeat_options={"seconds": 8})["hash"] != before["hash"]
    edited = tmp_path / "judge.py"
    edited.write_text("# edited\n")
    role.HEARTBEAT = [files[0], edited, files[2]]
    after = container(role)
    assert (after["hash"], after["heartbeat_dir"]) != (before["hash"], before["heartbeat_dir"])
    assert after["heartbeat_dir"] != before["heartbeat_dir"]
