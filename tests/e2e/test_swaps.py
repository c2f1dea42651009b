"""A change while clients ask, what is known of it afterwards, and back. More of them: tests/faults."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import docker
import pytest
from load import Load
from stack import REPO, Site, ids, instances, shipped


@pytest.fixture(scope="module", autouse=True)
def accepted(site: Site) -> list[dict[str, Any]]:
    """The site is up; returns its models."""
    site.deployctl("up", timeout=1500)
    return site.models()


def load(site: Site, model: str = "chat-default", streams: int = 1) -> Load:
    """Two people who want whole answers and some who want streams; the heavy load is that of tests/faults."""
    env = site.client_env()
    return Load(env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"], model, chats=2, streams=streams, pause=4.0)


def none_failed(seen: Load) -> None:
    print(f"chats {seen.chats}\nstreams {seen.streams}")
    assert seen.chats.sent > 10
    assert seen.chats.failed == []
    assert seen.streams.failed == []
    assert seen.streams.cut_aloud == 0


def served(engine: docker.DockerClient) -> dict[str, str]:
    """What each engine was started with."""
    return {name: " ".join(container.attrs["Args"]) for name, container in instances(engine).items()}


def as_json(site: Site, command: str, *args: str) -> dict[str, Any]:
    """What a command says as JSON; it must end with 0."""
    printed = subprocess.run(
        ["deployctl", command, str(site.inventory), "--json", *args],
        cwd=REPO, env=site.env(), capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip
    found: dict[str, Any] = json.loads(printed)
    return found


def test_a_changed_model_is_swapped_while_people_chat(site: Site, engine: docker.DockerClient) -> None:
    first, before = site.models(), ids(engine)
    site.write_models([{**first[0], "context_length": 1024}])
    foreseen = site.deployctl("swap", "-C")
    assert "would replace, one after another: vllm-tiny-chat-0, vllm-tiny-chat-1" in foreseen
    assert ids(engine) == before
    with load(site) as seen:
        printed = site.deployctl("swap")
        time.sleep(1)
    none_failed(seen)
    assert "ACCEPTED" in printed
    assert all("--max-model-len 1024" in args for args in served(engine).values())
    assert set(ids(engine)) == set(before)


def test_history_names_the_states_and_what_changed(site: Site) -> None:
    secret = site.client_env()["OPENAI_API_KEY"].removeprefix("sk-")
    told = as_json(site, "history")
    newest, older = told["states"][0], told["states"][1]
    assert newest["current"] and newest["verdict"] == older["verdict"] == "accepted"
    assert newest["changes"]
    printed = site.deployctl("history", older["id"], newest["id"])
    assert "context_length" in printed
    assert secret not in printed
    for file in Path("/var/lib/deployctl/states").glob("*.json"):
        assert file.stat().st_mode & 0o777 == 0o600
        assert secret not in file.read_text()


def test_rollback_returns_to_the_state_before_though_the_inventory_cannot_be_planned(
    site: Site, engine: docker.DockerClient
) -> None:
    clients = load(site)
    site.models_file.write_text("models: [{name: broken}]\n")
    site.deployctl("up", code=2)
    with clients as seen:
        printed = site.deployctl("rollback")
    none_failed(seen)
    assert "ACCEPTED" in printed
    assert not any("--max-model-len 1024" in args for args in served(engine).values())
    site.write_models(shipped())
