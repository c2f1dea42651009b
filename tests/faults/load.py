"""Clients that keep asking while something happens to the site, and count what they saw."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import requests


@dataclass
class Seen:
    """What the clients of one kind saw; times in seconds."""

    sent: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    cut_aloud: int = 0
    """Streams that ended with an explicit error."""


class Load:
    """Clients without retries of their own, from entering the block until its end.

    `chats` ask for whole answers, `streams` for streamed ones; each asks again after `pause` seconds. An answer counts
    only when it is whole: status 200 and exactly the tokens asked for; a stream also needs its end mark, or an explicit
    error.
    """

    def __init__(
        self, url: str, key: str, model: str, chats: int = 4, streams: int = 0, tokens: int = 60, pause: float = 0.0
    ) -> None:
        self.url, self.key, self.model, self.tokens, self.pause = url, key, model, tokens, pause
        self.chats, self.streams = Seen(), Seen()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        kinds = [(self._chat, self.chats)] * chats + [(self._stream, self.streams)] * streams
        self._threads = [threading.Thread(target=self._run, args=kind, daemon=True) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(200)

    def _run(self, ask: object, seen: Seen) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    wrong = ask(session)  # type: ignore[operator]
                except (requests.RequestException, ValueError, KeyError) as error:
                    wrong = repr(error)[:300]
                took = time.monotonic() - begun
                with self._lock:
                    seen.sent += 1
                    seen.slowest = max(seen.slowest, took)
                    if wrong == "cut aloud":
                        seen.cut_aloud += 1
                    elif wrong:
                        seen.failed.append(f"after {took:.1f} s: {wrong}")
                self._stop.wait(self.pause)

    def _post(self, session: requests.Session, stream: bool) -> requests.Response:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"go on {time.monotonic_ns()}"}],
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {"Authorization": f"Bearer {self.key}"}
        return session.post(self.url + "/chat/completions", json=body, headers=headers, timeout=180, stream=stream)

    def _chat(self, session: requests.Session) -> str:
        answer = self._post(session, stream=False)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:200]}"
        tokens = answer.json()["usage"]["completion_tokens"]
        return "" if tokens == self.tokens else f"{tokens} tokens: {answer.text[:100]}"

    def _stream(self, session: requests.Session) -> str:
        tokens, begun = 0, False
        answer = self._post(session, stream=True)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:200]}"
        try:
            for line in answer.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                if line == b"data: [DONE]":
                    return "" if tokens == self.tokens else f"silent short answer: {tokens} tokens"
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    return "cut aloud"
                begun = begun or bool(chunk.get("choices"))
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        except requests.RequestException:
            # The connection broke in the middle: any client sees that as an error.
            return "cut aloud" if begun else "broken before the first token"
        return "silent short answer: no end mark"
