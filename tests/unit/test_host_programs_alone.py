"""The programs that go to hosts, as they are sent there: one argument in, one line of JSON out; on Python 3.9 too."""

from __future__ import annotations

import json
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import ROOT

OLD = shutil.which("python3.9")  # may be a shim of a version that is not chosen
WORKS = OLD and subprocess.run([OLD, "-V"], capture_output=True, check=False).returncode == 0
PYTHONS = [sys.executable, *([OLD] if OLD and WORKS else [])]
STAT = """\
# pxname,svname,scur,qcur,status,weight
chat,chat-0,0,0,{0},1
chat,chat-1,0,0,UP,1

"""
STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state
3 chat 1 chat-0 127.0.0.1 2 {0}
3 chat 2 chat-1 127.0.0.1 2 0

"""


class HAProxy(socketserver.ThreadingUnixStreamServer):
    """As much of the admin socket as is asked; remembers what it was told."""

    def __init__(self, path: Path) -> None:
        self.told: list[str] = []
        self.drained = False
        super().__init__(str(path), Answer)


class Answer(socketserver.StreamRequestHandler):
    """One command, one answer."""

    def handle(self) -> None:
        assert isinstance(self.server, HAProxy)
        command = self.rfile.readline().decode().strip()
        self.server.told.append(command)
        if command.startswith("set server"):
            self.server.drained = command.endswith("drain")
        elif command.startswith("show stat"):
            self.wfile.write(STAT.format("DRAIN" if self.server.drained else "UP").encode())
        elif command.startswith("show servers state"):
            self.wfile.write(STATE.format(8 if self.server.drained else 0).encode())


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    with HAProxy(tmp_path / "admin.sock") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def asked(python: str, program: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a program answers when it is sent as the action plugin sends it."""
    source = (ROOT / "playbooks/programs" / f"{program}.py").read_text()
    done = subprocess.run(
        [python, "-c", source, json.dumps(given)], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_a_server_is_drained_once_and_put_back(python: str, haproxy: HAProxy, tmp_path: Path) -> None:
    given = {"socket": str(tmp_path / "admin.sock"), "servers": ["chat-0"], "state": "drain", "wait": 2, "config": ""}
    first, again = asked(python, "haproxy_server", given), asked(python, "haproxy_server", given)
    assert (first["changed"], first["settled"], first["servers"]) == (True, True, {"chat/chat-0": "DRAIN"})
    assert again["changed"] is False
    back = asked(python, "haproxy_server", {**given, "state": "ready"})
    assert (back["changed"], back["servers"]) == (True, {"chat/chat-0": "UP"})
    sets = [line for line in haproxy.told if line.startswith("set ")]
    assert sets == ["set server chat/chat-0 state drain", "set server chat/chat-0 state ready"]


@pytest.mark.parametrize("python", PYTHONS)
def test_where_no_haproxy_runs_there_is_nothing_to_take_out(python: str, tmp_path: Path) -> None:
    given = {"socket": str(tmp_path / "none"), "servers": ["chat-0"], "state": "drain", "wait": 0, "config": ""}
    told = asked(python, "haproxy_server", given)
    assert (told["gateway"], told["settled"], told["changed"]) == (False, True, False)


@pytest.mark.parametrize("python", PYTHONS)
def test_an_engine_that_is_not_there_is_a_finding(python: str, tmp_path: Path) -> None:
    given = {
        "socket": str(tmp_path / "none"), "url": "http://127.0.0.1:9", "instance": "chat-0", "model": "chat",
        "warm_up": 1, "patience": 0, "requests": 1, "tokens": 4, "questions": [], "timeout": 5,
    }  # fmt: skip
    told = asked(python, "vllm_canary", given)
    assert "refused" in told["problems"][0] and told["ttft_ms"] is None


@pytest.mark.parametrize("python", PYTHONS)
def test_a_look_at_a_host_without_the_site(python: str) -> None:
    told = asked(python, "site_look", {"site": "no-such-site", "probe": "", "instances": []})
    assert told["look"]["containers"] == {} and told["tokens"] == {}
