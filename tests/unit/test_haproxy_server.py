"""Who may be taken out of HAProxy's rotation: what its admin socket tells, without one."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded

HEAD = "# pxname,svname,scur,qcur,status,weight,bck,"


@pytest.fixture
def program() -> Any:
    return loaded("playbooks/programs/haproxy_server.py")


def table(*lines: str) -> str:
    return "\n".join([HEAD, *lines]) + "\n"


@pytest.mark.parametrize(
    ("beside", "alone"),
    [
        ("chat,chat-1,0,0,UP,1,0,", []),
        ("chat,chat-1,0,0,UP 1/2,1,0,", []),
        ("chat,chat-1,0,0,DOWN,1,0,", ["chat"]),
        ("chat,chat-1,0,0,DRAIN,1,0,", ["chat"]),
        ("chat,chat-1,0,0,UP,0,0,", ["chat"]),  # on probation
        ("chat,hold,0,0,no check,1,1,", ["chat"]),
        ("other,other-0,0,0,UP,1,0,", ["chat"]),
    ],
)
def test_who_would_be_the_last(program: Any, monkeypatch: pytest.MonkeyPatch, beside: str, alone: list[str]) -> None:
    monkeypatch.setattr(program, "ask", lambda *_: table("chat,chat-0,0,0,UP,1,0,", beside))
    assert program.left_alone("socket", ["chat-0"]) == alone


def test_nobody_is_drained_while_no_other_serves(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def ask(_path: str, command: str) -> str:
        said.append(command)
        return table("chat,chat-0,0,0,UP,1,0,", "chat,chat-1,0,0,DOWN,1,0,")

    monkeypatch.setattr(program, "ask", ask)
    monkeypatch.setattr(program.time, "monotonic", iter(range(100)).__next__)
    monkeypatch.setattr(program.time, "sleep", lambda _seconds: None)
    answer = program.converge("socket", ["chat-0"], "drain", 0, "", 5)
    assert answer == {"failed": True, "msg": "no other replica takes requests for chat"}
    assert not [command for command in said if command.startswith("set server")]


def test_one_is_drained_as_soon_as_another_serves(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(["DOWN", "DOWN", "UP"])
    said: list[str] = []

    def ask(_path: str, command: str) -> str:
        said.append(command)
        if command.startswith("show stat"):
            return table("chat,chat-0,0,0,UP,1,0,", f"chat,chat-1,0,0,{next(looks, 'UP')},1,0,")
        if command.startswith("show servers state"):
            return "1\n# be_name srv_name srv_admin_state\nchat chat-0 0\nchat chat-1 0\n"
        return ""

    monkeypatch.setattr(program, "ask", ask)
    monkeypatch.setattr(program.time, "sleep", lambda _seconds: None)
    assert program.converge("socket", ["chat-0"], "drain", 0, "", 60)["changed"]
    assert "set server chat/chat-0 state drain" in said
