"""When an engine counts as ready, and when waiting for it has no sense. The engines here are small HTTP servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from loading import loaded

program = loaded("playbooks/programs/vllm_ready.py")
ANSWERS: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "good": (200, [{"choices": [{"text": " a", "logprobs": {"token_logprobs": [-0.5]}}]}]),
    "nan": (200, [{"choices": [{"text": "!", "logprobs": {"token_logprobs": [float("nan")]}}]}]),
    "null": (200, [{"choices": [{"text": "!", "logprobs": {"token_logprobs": [None]}}]}]),
    "empty": (200, []),
    "error": (200, [{"error": {"message": "the core died"}}]),
    "away": (503, []),
}


class Engine(BaseHTTPRequestHandler):
    """Answers as vLLM streams, after the name of the model."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, chunks = ANSWERS[body["model"]]
        self.send_response(status)
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("good", ""),
        ("nan", program.NO_NUMBERS),
        ("null", program.NO_NUMBERS),
        ("empty", "answered without a token"),
        ("error", "{'message': 'the core died'}"),
        ("away", "HTTP 503: data: [DONE]\n\n"),
    ],
)
def test_a_token_counts_when_its_probability_is_a_number(url: str, model: str, why: str) -> None:
    assert program.one_token(url, model, 5) == why


def looked(monkeypatch: pytest.MonkeyPatch, url: str, model: str, restarts: int, before: int | None) -> dict[str, Any]:
    found = [{"State": {"Running": True, "Status": "running", "ExitCode": 1}, "RestartCount": restarts}]
    monkeypatch.setattr(program, "docker", lambda *args: json.dumps(found) if args[0] == "inspect" else "a line")
    seen: dict[str, Any] = program.look({"name": "vllm-m-0", "url": url, "served_names": [model]}, 5, before)
    return seen


def test_who_was_restarted_long_ago_is_waited_for(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert looked(monkeypatch, url, "away", 4, None)["fatal"] == ""  # the first look
    assert looked(monkeypatch, url, "away", 4, 4)["fatal"] == ""
    assert "stopped 6 times" in looked(monkeypatch, url, "away", 5, 4)["fatal"]
    assert looked(monkeypatch, url, "away", 1, 0)["fatal"] == ""  # the first crash may be chance


def test_who_computes_no_numbers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert looked(monkeypatch, url, "nan", 0, None)["fatal"] == program.NO_NUMBERS
    assert looked(monkeypatch, url, "good", 0, None)["ready"]


def test_tries_of_one_task_remember_the_first_look(tmp_path: Path) -> None:
    """By the real Ansible, which makes every try with another object; `docker` counts how often it was asked."""
    docker = tmp_path / "docker"
    found = json.dumps([{"State": {"Running": False, "Status": "restarting", "ExitCode": 1}, "RestartCount": "%d"}])
    docker.write_text(
        "#!/bin/sh\n[ $1 = inspect ] || { echo ValueError: no such thing; exit 0; }\n"
        f"echo >> {tmp_path}/asked\nprintf '{found}' $((5 + $(wc -l < {tmp_path}/asked)))\n"
    )
    docker.chmod(0o755)
    task = {
        "vllm_ready": {"containers": [{"name": "vllm-m-0", "url": "http://127.0.0.1:9", "served_names": ["m"]}]},
        "register": "seen",
        "until": "seen.settled",
        "retries": 20,
        "delay": 0,
        "failed_when": "not seen.ready",
    }
    book = tmp_path / "book.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", book],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
             "ANSIBLE_ACTION_PLUGINS": str(root / "playbooks/action_plugins")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "stopped 8 times (exit code 1): ValueError: no such thing" in done.stdout, done.stdout + done.stderr
    assert len((tmp_path / "asked").read_text().splitlines()) == 2
