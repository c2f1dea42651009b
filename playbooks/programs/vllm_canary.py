"""Ask one engine, through the gateway, for some answers: is it the right one, is it whole, how fast is it.

Sent to the host as it is, see action_plugins/vllm_canary.py, which also says what the arguments are.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        """Keep the path."""
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class WrongAnswerError(Exception):
    """The engine answered, and not as it should."""


def post(given: dict[str, Any], path: str, body: dict[str, Any]) -> tuple[http.client.HTTPResponse, Any]:
    """Send one request to the engine; raises WrongAnswerError when another one or an error answered."""
    link: Any
    if given["socket"]:
        link, prefix = SocketConnection(given["socket"], given["timeout"]), f"/probe/{given['instance']}"
    else:
        host, _, port = given["url"].partition("://")[2].rpartition(":")
        link, prefix = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=given["timeout"]), ""
    link.request("POST", prefix + path, json.dumps(body), {"Content-Type": "application/json"})
    answer = link.getresponse()
    if answer.status != 200:
        raise WrongAnswerError(f"HTTP {answer.status}: {answer.read()[:200].decode(errors='replace')}")
    served = answer.getheader("x-served-by", "")
    if given["socket"] and served != given["instance"]:
        raise WrongAnswerError(f"{served or 'nobody'} answered in its place")
    return answer, link


def streamed(given: dict[str, Any], number: int) -> dict[str, float]:
    """One streamed answer. Returns ttft (s) and rate (tokens/s of the whole answer: busy cores bunch chunks up)."""
    body = {
        "model": given["model"],
        "prompt": f"Question {number}: what stands in the log of the harbour today?",
        "max_tokens": given["tokens"],
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "logprobs": 1,
        "stream_options": {"include_usage": True},
    }
    begun, first, tokens, done, whole = time.monotonic(), 0.0, 0, False, []
    answer, link = post(given, "/v1/completions", body)
    for line in answer:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            break
        first = first or time.monotonic()
        chunk = as_json(line[6:])
        check_chunk(chunk, given["model"])
        whole += [part.get("text", "") for part in chunk.get("choices", [])]
        tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    ended = time.monotonic()
    link.close()
    if not done:
        raise WrongAnswerError("a stream ended without its end mark")
    if tokens < given["tokens"]:
        raise WrongAnswerError(f"{tokens} tokens where {given['tokens']} were asked for")
    return {"ttft": first - begun, "rate": tokens / (ended - begun)}


def as_json(text: bytes) -> dict[str, Any]:
    """Decode one answer; raises WrongAnswerError when it is no JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WrongAnswerError(f"not JSON: {text[:80].decode(errors='replace')!r}")
    return found


def check_chunk(chunk: dict[str, Any], model: str) -> None:
    """Refuse an error inside a stream, another model's name, and probabilities that are no numbers (broken weights)."""
    if "error" in chunk:
        raise WrongAnswerError(f"error in a stream: {str(chunk['error'])[:200]}")
    if chunk.get("model") != model:
        raise WrongAnswerError(f"it says it is model {str(chunk.get('model'))[:80]}")
    for choice in chunk.get("choices", []):
        told = (choice.get("logprobs") or {}).get("token_logprobs") or []
        if any(not isinstance(p, (int, float)) or not math.isfinite(p) for p in told):
            raise WrongAnswerError("the probabilities of its tokens are no numbers: its weights are broken")


def asked(given: dict[str, Any], question: dict[str, str]) -> None:
    """Ask one question of the site; raises WrongAnswerError when the answer does not hold what it must."""
    body = {
        "model": given["model"],
        "messages": [{"role": "user", "content": question["ask"]}],
        "max_tokens": 200,
        "temperature": 0,
    }
    answer, link = post(given, "/v1/chat/completions", body)
    found = as_json(answer.read())
    link.close()
    text = str(((found.get("choices") or [{}])[0].get("message") or {}).get("content"))
    if not re.search(question["matches"], text):
        raise WrongAnswerError(f"to {question['ask']!r} it answered {text[:80]!r}, without {question['matches']!r}")


def answers(given: dict[str, Any], count: int) -> tuple[list[dict[str, float]], list[str]]:
    """Ask for some streamed answers; returns those that came whole, and at most three problems."""
    good: list[dict[str, float]] = []
    problems: list[str] = []
    for number in range(count):
        try:
            good.append(streamed(given, number))
        except (OSError, WrongAnswerError, http.client.HTTPException) as error:
            problems.append(str(error) or type(error).__name__)
            if len(problems) == 3:
                break
    return good, problems


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Ask for everything; returns problems, ttft_ms and tokens_per_second (None where nothing was measured).

    The best of all answers counts: a machine that is busy makes some slow, a slow engine all.
    """
    patient_until = time.monotonic() + given["patience"]
    problems = answers(given, given["warm_up"])[1]
    while problems and time.monotonic() < patient_until:
        time.sleep(0.2)
        problems = answers(given, given["warm_up"])[1]
    good: list[dict[str, float]] = []
    if not problems:
        good, problems = answers(given, given["requests"])
    for question in [] if problems else given["questions"]:
        try:
            asked(given, question)
        except (OSError, WrongAnswerError, http.client.HTTPException) as error:
            problems.append(str(error) or type(error).__name__)
    return {
        "problems": list(dict.fromkeys(problems)),
        "ttft_ms": round(min(g["ttft"] for g in good) * 1000, 1) if good else None,
        "tokens_per_second": round(max(g["rate"] for g in good), 1) if good else None,
    }


def main() -> None:
    """Measure and tell."""
    given = json.loads(sys.argv[1])
    if not Path(given["socket"]).is_socket():
        given["socket"] = ""
    print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
