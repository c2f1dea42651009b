"""The table of instances, from what hosts and gateways said; and the module that asks the hosts."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loading import loaded
from rich.console import Console

from deploy_cli.status import client_env, env_lines, lines, located, merge, table

METRICS = """\
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny, chat"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny, chat"} 1.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:prefix_cache_queries_total{engine="0"} 1e+03
vllm:prefix_cache_queries_created{engine="0"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0"} 250.0
broken line
"""


def instance(number: int, host: str = "node1") -> dict[str, Any]:
    name = f"chat-{number}"
    return {
        "name": name,
        "container": f"vllm-{name}",
        "model": "chat",
        "pool": "chat",
        "host": host,
        "port": 8100 + number,
        "publish_address": "127.0.0.1",
    }


def plan(*hosts: str) -> dict[str, Any]:
    return {
        "site": "local",
        "instances": [instance(number, host) for number, host in enumerate(hosts or ("node1",))],
        "gateway": {"hosts": ["gw"], "base_url": "http://127.0.0.1:8000/v1"},
        "telemetry": {"jaeger_url": "http://127.0.0.1:16686"},
    }


def well(**more: Any) -> dict[str, Any]:
    return {"container": "running", "restarts": 0, "health": "ok", "running": 1.0, "waiting": 0.0, **more}


def route(status: str, name: str = "chat-0") -> dict[str, Any]:
    return {"servers": {"chat": {name: {"status": status, "sessions": 2, "queued": 0}}}}


def test_a_healthy_instance_with_all_its_numbers() -> None:
    facts = well(kv_cache_usage=0.031, prefix_hits=250.0, prefix_queries=1000.0)
    document = merge(plan(), {"node1": {"instances": {"chat-0": facts}}}, {"gw": route("UP")})
    assert document["ok"]
    row = document["instances"][0]
    assert (row["state"], row["running"], row["prefix_hit_rate"], row["gateway"]) == ("healthy", 1, 0.25, "UP")
    assert lines(document)[1].split() == [
        "chat-0", "chat", "node1", "healthy", "1", "0", "3.1%", "25%", "UP",
    ]  # fmt: skip
    assert document["gateways"] == {"gw": "ok"}


@pytest.mark.parametrize(
    ("facts", "gateway", "state"),
    [
        (well(), route("UP 1/2"), "healthy"),
        (well(), route("no check"), "healthy"),
        (well(), route("DOWN"), "not routed"),
        (well(), route("DRAIN"), "draining"),
        (well(), route("MAINT"), "draining"),
        (well(), route("UP", "other"), "not routed"),
        (well(), {"error": "no answer"}, "not routed"),
        (well(health="http 503"), route("UP"), "unhealthy"),
        (well(health="no answer"), route("DOWN"), "starting"),
        ({"container": "absent", "health": "no answer"}, route("DOWN"), "absent"),
        ({"container": "exited", "health": "no answer"}, route("DOWN"), "down"),
        ({"container": "restarting", "health": "no answer"}, route("DOWN"), "down"),
        ({"container": "no docker", "health": "no answer"}, route("DOWN"), "down"),
    ],
)
def test_every_state_has_its_word_and_only_healthy_is_ok(
    facts: dict[str, Any], gateway: dict[str, Any], state: str
) -> None:
    document = merge(plan(), {"node1": {"instances": {"chat-0": facts}}}, {"gw": gateway})
    assert document["instances"][0]["state"] == state
    assert document["ok"] == (state == "healthy")


def test_an_unreachable_host_a_failed_module_and_a_host_that_was_not_asked() -> None:
    told = {"node1": {"unreachable": True}, "node2": {"failed": True, "msg": "no python"}}
    document = merge(plan("node1", "node2", "node3"), told, {"gw": {"error": "unreachable"}})
    assert [row["state"] for row in document["instances"]] == ["unreachable", "unknown"]
    assert not document["ok"]
    assert document["gateways"] == {"gw": "unreachable"}


def test_instances_are_looked_for_where_they_really_run() -> None:
    planned = plan("node1", "node1", "node2")["instances"]
    moved = {"host": "node2", "address": "192.0.2.2", "port": 8109, "devices": ["GPU-1"]}
    both = [{"chat-0": moved, "chat-2": {"host": "node2", "address": "", "port": None, "devices": []}}, {}]
    both[1]["chat-2"] = {"host": "node1", "address": "192.0.2.1", "port": 8100, "devices": []}
    found = located(planned, both)
    assert [(one["host"], one["publish_address"], one["port"]) for one in found] == [
        ("node2", "192.0.2.2", 8109),
        ("node1", "127.0.0.1", 8101),
        ("node2", "127.0.0.1", 8102),
    ]
    assert found[0]["container"] == "vllm-chat-0"


def test_nothing_asked_is_not_ok() -> None:
    assert not merge(plan(), {}, {})["ok"]


def test_two_gateways_that_disagree_are_both_shown() -> None:
    gateways = {"gw1": route("UP"), "gw2": route("DOWN")}
    row = merge(plan(), {"node1": {"instances": {"chat-0": well()}}}, gateways)["instances"][0]
    assert (row["gateway"], row["state"]) == ("DOWN / UP", "not routed")


def test_the_terminal_table_holds_what_the_lines_hold() -> None:
    document = merge(plan(), {"node1": {"instances": {"chat-0": well(restarts=3)}}}, {"gw": route("UP")})
    stream = io.StringIO()
    Console(file=stream, width=100).print(table(document))
    for word in ("INSTANCE", "chat-0", "healthy (3 restarts)", "UP"):
        assert word in stream.getvalue()


def test_client_values_are_safe_for_a_shell() -> None:
    values = client_env(plan(), [{"id": "a", "key": "sk $(x)'y"}, {"id": "b", "key": "second"}])
    assert env_lines(values) == [
        "OPENAI_BASE_URL=http://127.0.0.1:8000/v1",
        """OPENAI_API_KEY='sk $(x)'"'"'y'""",
        "JAEGER_URL=http://127.0.0.1:16686",
    ]
    assert "OPENAI_API_KEY" not in client_env(plan(), [])


@pytest.fixture(scope="module")
def module() -> ModuleType:
    found: ModuleType = loaded("playbooks/library/instance_status.py")
    return found


class Engine(BaseHTTPRequestHandler):
    """Answers like a vLLM instance; /sick is one whose engine is dead."""

    def do_GET(self) -> None:
        status = 503 if "sick" in self.path else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(METRICS.encode() if self.path.endswith("/metrics") else b"")

    def log_message(self, *_arguments: Any) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_module_reads_health_and_metrics(module: ModuleType, port: int) -> None:
    assert module.ask({"publish_address": "127.0.0.1", "port": port}, 5) == {
        "health": "ok",
        "running": 3.0,
        "waiting": 0.0,
        "kv_cache_usage": 0.5,
        "prefix_hits": 250.0,
        "prefix_queries": 1000.0,
    }
    assert module.get(f"http://127.0.0.1:{port}/sick", 5) == (503, "")


def test_the_module_takes_silence_for_an_answer(module: ModuleType) -> None:
    assert module.ask({"publish_address": "127.0.0.1", "port": 9}, 1) == {"health": "no answer"}


def test_the_module_reads_dockers_answers(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert module.container_states([], 5) == {}
    state = '{"Name": "/a", "RestartCount": 2, "State": {"Status": "exited", "StartedAt": "t", "ExitCode": 137}}'
    docker.write_text(f"#!/bin/sh\necho '[{state}]'\necho 'Error: No such container: b' >&2\nexit 1\n")
    docker.chmod(0o755)
    found = module.container_states(["a", "b"], 5)
    assert found["a"] == {"container": "exited", "restarts": 2, "started": "t", "container_exit_code": 137}
    assert found["b"] == {"container": "absent"}
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    assert module.container_states(["a"], 5) == {"a": {"container": "no docker"}}
    docker.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.container_states(["a"], 5) == {"a": {"container": "no docker"}}
