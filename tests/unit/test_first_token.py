"""A stream's status waits for its first piece; what failed before it is an answer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from loading import loaded

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def body(text: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


@pytest.fixture(scope="module")
def first_token() -> Any:
    return loaded("roles/vllm/files/heartbeat/first_token.py")


def sent(module: Any, app: Callable[..., Awaitable[None]], kind: str = "http") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        found.append(message)

    async def run() -> None:
        try:
            await module.FirstToken(app)({"type": kind}, None, send)
        except ConnectionError:
            found.append({"type": "raised"})

    asyncio.run(run())
    return found


def says(*messages: dict[str, Any], then: Exception | None = None) -> Callable[..., Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        for message in messages:
            await send(message)
        if then:
            raise then

    return app


def test_a_stream_passes_as_it_is(first_token: Any) -> None:
    pieces = [START, body(b"data: {}\n\n"), body(b'data: {"error": {"code": 500}}\n\n'), body(b"", more=False)]
    assert sent(first_token, says(*pieces)) == pieces


def test_without_a_first_piece_nothing_is_said(first_token: Any) -> None:
    assert sent(first_token, says(START, then=ConnectionError())) == [{"type": "raised"}]


def test_a_failure_before_the_first_token_is_a_status(first_token: Any) -> None:
    piece = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
    found = sent(first_token, says(START, body(piece), body(b"data: [DONE]\n\n"), body(b"", more=False)))
    assert [message["type"] for message in found] == ["http.response.start", "http.response.body"]
    assert found[0]["status"] == 500
    assert dict(found[0]["headers"])[b"content-length"] == str(len(found[1]["body"])).encode()
    assert b"EngineCore died" in found[1]["body"]
    assert not found[1]["more_body"]


@pytest.mark.parametrize(
    "piece",
    [
        b'data: {"error": {"message": "too long", "code": 400}}\n\n',
        b'data: {"error": "text"}\n\n',
        b'data: {"error"',
        b"",
    ],
)
def test_what_the_request_did_wrong_stays_in_the_stream(first_token: Any, piece: bytes) -> None:
    pieces = [START, body(piece), body(b"", more=False)]
    assert sent(first_token, says(*pieces)) == pieces


def test_all_but_http_passes(first_token: Any) -> None:
    assert sent(first_token, says(START), kind="lifespan") == [START]
