"""Middleware of vLLM's API server: a stream begins with its first token, so that one without any can be repeated.

vLLM sends the status line of a stream at once. When the engine then dies before its first token, HAProxy has passed a
200 on and cannot send the request to another engine any more; a client sees a stream that breaks. Held back until there
is a first piece, the answer is missing as a whole, or is a 500, and HAProxy repeats the request elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

EVENT = b"data: "


def failure(piece: bytes) -> tuple[int, bytes]:
    """Status and JSON body, when a stream's first piece says that the server failed; else (0, b"")."""
    if not piece.startswith(EVENT + b'{"error"'):
        return 0, b""
    try:
        told = json.loads(piece[len(EVENT) :].split(b"\n", 1)[0])
        code = int(told["error"]["code"])
    except (ValueError, TypeError, KeyError):
        return 0, b""
    return (code, json.dumps(told).encode()) if 500 <= code <= 599 else (0, b"")


class FirstToken:
    """ASGI middleware, as `--middleware first_token.FirstToken` loads it."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Wrap the application."""
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Serve one connection; all but HTTP passes untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        ended = False

        async def held(message: Message) -> None:
            nonlocal start, ended
            if ended:
                return
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                first, start = start, None
                status, body = failure(message.get("body", b""))
                if status:
                    ended = True
                    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                    await send({"type": "http.response.start", "status": status, "headers": headers})
                    message = {"type": "http.response.body", "body": body, "more_body": False}
                else:
                    await send(first)
            await send(message)

        await self.app(scope, receive, held)
