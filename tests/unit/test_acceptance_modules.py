"""The measuring modules against fakes on loopback: a gateway with its engines, and a Jaeger."""

from __future__ import annotations

import importlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import acceptance_sample as sample
import ansible.module_utils
import pytest

from deploy_cli.bench import suites

ROLE = Path(__file__).resolve().parents[2] / "roles" / "acceptance"
KEY = "sk-test-0123456789"
METRICS = """# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="chat"} %d.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="chat"} 2.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="chat"} 50.0
vllm:prefix_cache_hits_total{engine="0",model_name="chat"} %d.0
vllm:prefix_cache_hits_created{engine="0",model_name="chat"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0",model_name="chat"} 1e3
"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    """The role's modules, found as Ansible finds them."""
    ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
    sys.path.insert(0, str(ROLE / "library"))

    class Modules:
        counters = importlib.import_module("acceptance_counters")
        requests = importlib.import_module("acceptance_requests")
        traces = importlib.import_module("acceptance_traces")
        load = importlib.import_module("acceptance_load")
        http = importlib.import_module("ansible.module_utils.acceptance_http")

    yield Modules
    sys.path.remove(str(ROLE / "library"))
    ansible.module_utils.__path__.remove(str(ROLE / "module_utils"))


class Fake(ThreadingHTTPServer):
    """Gateway, engine and Jaeger in one; its switches break one thing each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.served = 0
        self.hits = 0
        self.buffered = 0  # how many streams come all at once
        self.tool_arguments = ['{"city": "Oslo", "unit": "celsius"}']
        self.open_paths: set[str] = set()
        self.spans_after = 0.0  # seconds from the start until Jaeger knows the spans
        self.started = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def log_message(self, format: str, *args: object) -> None:
        return

    def version_string(self) -> str:
        return "uvicorn" if urlsplit(self.path).path in self.server.open_paths else "fake"

    def say(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, message: str) -> None:
        self.say(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/engine/metrics":
            self.say(200, METRICS % (self.server.served, self.server.hits), "text/plain")
        elif parts.path == "/engine/version":
            self.say(200, {"version": "0.32.0"})
        elif parts.path == "/;csv;norefresh":
            self.say(200, sample.csv(3), "text/plain")
        elif parts.path == "/v1/models" and self.authorised():
            self.say(200, {"data": [{"id": "chat"}, {"id": "default"}]})
        elif parts.path.startswith("/api/v3/traces"):
            self.jaeger(parts.path.removeprefix("/api/v3/traces").strip("/"), parse_qs(parts.query))
        elif parts.path in self.server.open_paths:
            self.say(200, "all my secrets", "text/plain")
        else:
            self.refuse(404, "no such path")

    def jaeger(self, trace_id: str, query: dict[str, list[str]]) -> None:
        if time.monotonic() - self.server.started < self.server.spans_after:
            self.refuse(404, "no traces found")
            return
        service = query.get("query.service_name", ["vllm-chat-0"])[0]
        if service == "vllm-silent" or trace_id == "missing":
            self.refuse(404, "no traces found")
            return
        values = [{"key": sample.ATTRIBUTES[0], "value": {"doubleValue": 0.01}}]
        values += [{"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": "22"}}]
        spans = [{"name": "Warmup", "attributes": []}, {"name": "llm_request", "attributes": values}]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
        self.say(200, {"result": {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}})

    def authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {KEY}"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, dict(self.headers)))
        if self.path in self.server.open_paths:
            self.say(405, {"detail": "Method Not Allowed"})
        elif self.path != "/v1/chat/completions":
            self.refuse(404, "no such path")
        elif not self.authorised():
            self.refuse(401, "Incorrect API key provided")
        elif body["model"] not in ("chat", "default"):
            self.refuse(404, "The model does not exist")
        elif body.get("stream"):
            self.stream(body["max_tokens"])
        else:
            self.chat(body)

    def chat(self, body: dict[str, Any]) -> None:
        self.server.served += 1
        message: dict[str, Any] = {"role": "assistant", "content": "the sea"}
        if body.get("tools"):
            arguments = self.server.tool_arguments.pop(0)
            message["tool_calls"] = [{"function": {"name": "report_weather", "arguments": arguments}}]
        if body["messages"][0]["role"] == "system":
            self.server.hits += 640
        usage = {"completion_tokens": 2, "prompt_tokens": 9}
        choices = [{"message": message, "finish_reason": "stop"}]
        self.say(200, {"model": body["model"], "choices": choices, "usage": usage})

    def stream(self, tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        held, self.server.buffered = self.server.buffered > 0, self.server.buffered - 1
        events = [json.dumps({"choices": [{"delta": {"content": "x"}}]}) for _ in range(tokens)]
        text = b""
        for event in [*events, json.dumps({"usage": {}}), "[DONE]"]:
            text += f"data: {event}\n\n".encode()
            time.sleep(0.02)
            if not held:
                self.chunk(text)
                text = b""
        if text:
            self.chunk(text)
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def options(fake: Fake, **changed: Any) -> dict[str, Any]:
    instances = [{"name": "chat-0", "url": f"{fake.url}/engine"}]
    return {
        "base_url": f"{fake.url}/v1",
        "api_key": KEY,
        "models": [{"name": "chat", "served_names": ["chat", "default"], "tool": suites.TOOL, "instances": instances}],
        "tool_attempts": 3,
        "tool_tokens": 1000,
        "closed_paths": [{"method": "GET", "path": "/metrics"}, {"method": "POST", "path": "/tokenize"}],
        "stream_tokens": 10,
        "stream_first_share_max": 0.5,
        "stream_attempts": 3,
        "prefix_characters": 500,
        "prefix_rounds": 2,
        "timeout": 10.0,
        **changed,
    }


def test_everything_is_asked_and_told(modules: Any, fake: Fake) -> None:
    found = modules.requests.measure(options(fake))
    assert found["models_list"]["ids"] == ["chat", "default"]
    assert found["answers"]["default"]["completion_tokens"] == 2
    assert [found[name]["status"] for name in ("no_key", "wrong_key", "unknown_model")] == [401, 401, 404]
    assert found["no_key"]["error_object"]["type"] == "invalid_request_error"
    stream = found["streams"]["chat"]
    assert len(stream) == 1
    assert stream[0]["chunks"] == 10  # the one with the usage is none
    assert stream[0]["done"]
    assert stream[0]["first_seconds"] < 0.5 * stream[0]["last_seconds"]
    assert json.loads(found["tool_calls"]["chat"][0]["arguments"]) == {"city": "Oslo", "unit": "celsius"}
    assert [entry["status"] for entry in found["closed_paths"]] == [404, 404]
    assert found["prefix"]["chat"]["answered"] == 2
    assert found["prefix"]["chat"]["after"]["chat-0"]["prefix_hits"] == 1280
    assert KEY not in json.dumps(found)


def test_the_traced_request_says_sampled(modules: Any, fake: Fake) -> None:
    trace = modules.requests.measure(options(fake))["trace"]
    parents = [headers["traceparent"] for _, _, headers in fake.seen if "traceparent" in headers]
    assert len(parents) == 1
    assert parents[0].startswith(f"00-{trace['trace_id']}-")
    assert parents[0].endswith("-01")


def test_the_tool_is_forced_and_strict(modules: Any, fake: Fake) -> None:
    modules.requests.measure(options(fake))
    body = next(body for _, body, _ in fake.seen if body.get("tools"))
    assert body["tool_choice"] == {"type": "function", "function": {"name": "report_weather"}}
    assert body["tools"][0]["function"]["strict"] is True
    assert body["max_tokens"] == 1000


def test_a_broken_tool_call_is_asked_again(modules: Any, fake: Fake) -> None:
    fake.tool_arguments = ['{"city": "Os', "true", '{"city": "Oslo", "unit": "celsius"}']
    assert len(modules.requests.measure(options(fake))["tool_calls"]["chat"]) == 3


def test_repeated_prefixes_are_long_alike_and_new_each_time(modules: Any, fake: Fake) -> None:
    for _ in range(2):
        fake.tool_arguments = ["{}"] * 3
        modules.requests.measure(options(fake))
    bodies = [body for _, body, _ in fake.seen if body.get("messages", [{}])[0].get("role") == "system"]
    prefixes = [body["messages"][0]["content"] for body in bodies]
    assert len(prefixes) == 4
    assert len(set(prefixes)) == 2
    assert {len(prefix) for prefix in prefixes} == {500}
    assert bodies[0]["messages"][1] != bodies[1]["messages"][1]


def test_one_bunched_up_stream_is_forgiven_and_a_buffer_is_not(modules: Any, fake: Fake) -> None:
    fake.buffered = 1
    tries = modules.requests.measure(options(fake))["streams"]["chat"]
    assert len(tries) == 2
    fake.buffered, fake.tool_arguments = 99, ["{}"] * 3
    tries = modules.requests.measure(options(fake))["streams"]["chat"]
    assert len(tries) == 3
    assert tries[-1]["first_seconds"] > 0.9 * tries[-1]["last_seconds"]


def test_open_paths_are_told_with_the_server_behind_them(modules: Any, fake: Fake) -> None:
    fake.open_paths = {"/metrics", "/tokenize"}
    found = modules.requests.measure(options(fake))["closed_paths"]
    assert [(entry["status"], entry["server"]) for entry in found] == [(200, "uvicorn"), (405, "uvicorn")]


def test_a_dead_gateway_is_a_measurement(modules: Any, fake: Fake) -> None:
    found = modules.requests.measure(options(fake, base_url="http://127.0.0.1:9/v1"))
    assert found["models_list"]["status"] == 0
    assert "refused" in found["answers"]["chat"]["error"]
    assert found["streams"]["chat"][0]["chunks"] == 0
    assert found["prefix"]["chat"]["answered"] == 0


def test_counters_are_read_from_haproxy_and_the_engines(modules: Any, fake: Fake) -> None:
    instances = [{"name": "chat-0", "url": f"{fake.url}/engine"}, {"name": "gone", "url": "http://127.0.0.1:9"}]
    fake.served = 3
    found = modules.counters.read_counters(fake.url, instances, 5)
    assert found["haproxy"]["csv"].startswith("# pxname")
    assert found["instances"]["chat-0"]["requests"] == 5  # without those that were aborted
    assert found["instances"]["chat-0"]["prefix_queries"] == 1000
    assert found["instances"]["chat-0"]["version"] == "0.32.0"
    assert found["instances"]["gone"]["requests"] is None
    assert "refused" in found["instances"]["gone"]["error"]


def test_traces_are_waited_for(modules: Any, fake: Fake) -> None:
    fake.spans_after = 0.3
    found = modules.traces.look(fake.url, "abcd", ["vllm-chat-0"], 0.0, 10, pause=0.1)
    assert found["trace"]["found"]
    assert found["trace"]["attributes"] == {sample.ATTRIBUTES[0]: 0.01, "gen_ai.usage.prompt_tokens": 22.0}
    assert found["services"] == {"vllm-chat-0": {"found": True, "error": ""}}


def test_what_is_not_in_jaeger_is_not_found(modules: Any, fake: Fake) -> None:
    found = modules.traces.look(fake.url, "missing", ["vllm-silent", "vllm-chat-0"], 0.0, 0.2, pause=0.1)
    assert not found["trace"]["found"]
    assert [entry["found"] for entry in found["services"].values()] == [False, True]
    dead = modules.traces.look("http://127.0.0.1:9", "abcd", ["vllm-chat-0"], 0.0, 0.1, pause=0.1)
    assert "refused" in dead["trace"]["error"]


LOG = "INFO starting\n  0%|   | 0/64 [00:00<?, ?it/s]\r  2%|  | 1/64 [00:01<01:00]\r 37%|## | 24/64 [00:03<00:05]"


@pytest.mark.parametrize(
    ("state", "over", "exit_code", "progress"),
    [
        ({"Running": True}, False, None, "bench chat: 24/64 requests"),
        ({"Running": True, "StartedAt": "2020-01-01T00:00:00.5Z"}, True, -1, "its time is up"),
        ({"Running": False, "ExitCode": 3}, True, 3, "24/64"),
        ({}, True, -1, "its container is gone"),
    ],
)
def test_the_load_run_tells_how_far_it_is(
    modules: Any, state: dict[str, Any], over: bool, exit_code: int | None, progress: str
) -> None:
    asked = {"title": "bench chat", "prompts": 64, "timeout": 60}
    found = modules.load.report(state, LOG, asked, time.time())
    assert (found["over"], found.get("exit_code")) == (over, exit_code)
    assert progress in found["progress"]


def test_a_load_run_without_a_bar_is_getting_ready(modules: Any) -> None:
    assert modules.load.wording("bench chat", "loading 3/7 [x]", 64) == "bench chat: getting ready"


def test_the_container_is_looked_up_on_the_engines_socket(modules: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "docker.sock")
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"State":{"Running":false}}'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /containers/acceptance-load/json ")
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert modules.load.container_state(path, "acceptance-load") == {"Running": False}
        thread.join()
    with pytest.raises(OSError, match="No such file"):
        modules.load.container_state(str(tmp_path / "none.sock"), "x")
