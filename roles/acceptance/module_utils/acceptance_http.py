"""Plain HTTP for the acceptance's measuring modules; the standard library of Python 3.9 is all a host needs.

Nothing here raises for what a server does or fails to do: a refused connection is a measurement (status 0).
No proxy setting of the host is followed: what is measured is the gateway itself.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from urllib.parse import urlsplit

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
UNSERVED = re.compile(r'finished_reason="(abort|error)"')


def _open(url, timeout):
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    return kind(parts.hostname, parts.port, timeout=timeout), target


def _send(connection, method, target, body, headers):
    payload = None if body is None else json.dumps(body).encode()
    if payload is not None:
        headers = dict(headers, **{"Content-Type": "application/json"})
    connection.request(method, target, body=payload, headers=headers)
    return connection.getresponse()


def call(method, url, body=None, headers=None, timeout=10.0):
    """One request: {"status", "text", "server", "seconds", "error"}; status 0 and an error when no answer came."""
    connection, target = _open(url, timeout)
    started = time.monotonic()
    try:
        response = _send(connection, method, target, body, headers or {})
        text = response.read().decode("utf-8", "replace")
        return {
            "status": response.status,
            "text": text,
            "server": response.headers.get("Server") or "",
            "seconds": round(time.monotonic() - started, 4),
            "error": "",
        }
    except (OSError, http.client.HTTPException) as error:
        seconds = round(time.monotonic() - started, 4)
        return {"status": 0, "text": "", "server": "", "seconds": seconds, "error": describe(error)}
    finally:
        connection.close()


def stream(url, body, headers, timeout):
    """One streamed answer: the seconds at which each data chunk arrived, and whether it ended with [DONE]."""
    connection, target = _open(url, timeout)
    started = time.monotonic()
    found = {"status": 0, "content_type": "", "arrivals": [], "done": False, "error": ""}
    try:
        response = _send(connection, "POST", target, body, headers)
        found["status"] = response.status
        found["content_type"] = response.headers.get("Content-Type") or ""
        if response.status != 200:
            found["error"] = error_text(response.read().decode("utf-8", "replace"))
            return found
        while True:
            line = response.readline()
            if not line:
                break
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                found["done"] = True
            elif as_json(data.decode("utf-8", "replace")).get("choices"):
                found["arrivals"].append(round(time.monotonic() - started, 4))
    except (OSError, http.client.HTTPException) as error:
        found["error"] = describe(error)
    finally:
        connection.close()
    return found


def describe(error):
    """An exception in words, never empty."""
    return str(error) or type(error).__name__


def as_json(text):
    """The JSON object in the text, or an empty one where there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def error_text(text, limit=200):
    """The message of an OpenAI-style error, else the beginning of the text."""
    error = as_json(text).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or text)[:limit]


def failure(answer, accepted=(200,)):
    """What is wrong with the answer in a few words; empty for an accepted status."""
    if answer["status"] in accepted:
        return ""
    return answer["error"] or f"HTTP {answer['status']}"


def counter(metrics, name):
    """Sum of a Prometheus counter over its labels, or None where the text has no such counter.

    Requests that were aborted or failed are left out of the counters that name a reason.
    """
    total = None
    for line in metrics.splitlines():
        sample = SAMPLE.match(line)
        if sample and sample.group(1) == name and not UNSERVED.search(sample.group(2) or ""):
            try:
                total = (total or 0.0) + float(sample.group(3))
            except ValueError:
                continue
    return total


def instance_counters(url, timeout):
    """What one vLLM instance has counted so far; None for what could not be read, with the reason in `error`."""
    answer = call("GET", url + "/metrics", timeout=timeout)
    text = answer["text"] if answer["status"] == 200 else ""
    return {
        "requests": counter(text, "vllm:request_success_total"),
        "prefix_hits": counter(text, "vllm:prefix_cache_hits_total"),
        "prefix_queries": counter(text, "vllm:prefix_cache_queries_total"),
        "error": failure(answer),
    }
