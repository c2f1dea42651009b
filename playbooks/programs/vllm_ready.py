"""Ask engines for a token, and say what those that cannot answer yet are doing.

Sent to the host as it is, see action_plugins/vllm_ready.py, which also says what the arguments are.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

# What the engine's log says -> what we call it, the furthest first.
STAGES = (
    (r"Application startup complete|Started server process", "starting the API server"),
    (r"GPU KV cache size|CPU KV cache|init engine", "sizing the KV cache"),
    (r"Capturing|torch\.compile|Compiling", "compiling kernels"),
    (r"Loading (?:model )?weights|Loading safetensors|Model loading", "loading weights"),
    (r"Starting to load model", "loading the model"),
    (r"Initializing a V1|EngineCore", "starting the engine"),
)
CRASHES_THAT_TELL = 2


def docker(*args: str) -> str:
    """Output of one docker command, standard error included."""
    done = subprocess.run(["docker", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def one_token(url: str, model: str, timeout: int) -> str:
    """Generate one token; an empty string on success, else why not."""
    body = json.dumps({"model": model, "prompt": "ready", "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", data=body, headers=headers)  # noqa: S310 - the plan's own http
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            usage = json.loads(answer.read()).get("usage") or {}
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read()[:200].decode(errors='replace')}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return "" if usage.get("completion_tokens") else "answered without a token"


def last_error(log: str) -> str:
    """The line of the log that says most about a crash."""
    lines = [re.sub(r"^\(.*?\)\s*", "", line).strip() for line in log.splitlines()]
    died = [line for line in lines if re.search(r"died unexpectedly|exit code: -", line)]
    if died:
        return died[-1][:400]
    told = [
        line
        for line in lines
        if re.search(r"(?:Error|Exception|error:)", line) and "POST /v1" not in line and "Traceback" not in line
    ]
    return (told or [line for line in lines if line] or ["no output"])[-1][:400]


def look(container: dict[str, Any], timeout: int) -> dict[str, Any]:
    """State of one engine: ready, or what it is doing, or why it will not come."""
    name = container["name"]
    text = docker("inspect", name)
    if not text:
        return {"name": name, "ready": False, "fatal": "no such container", "progress": "absent"}
    found = json.loads(text)[0]
    state = found["State"]
    if state["Running"]:
        why = one_token(container["url"], container["served_names"][0], timeout)
        if not why:
            return {"name": name, "ready": True, "fatal": "", "progress": "ready"}
    else:
        why = state["Status"]
    log = docker("logs", "--tail", "400", name)
    fatal = ""
    if found["RestartCount"] >= CRASHES_THAT_TELL or state["Status"] in ("exited", "dead"):
        fatal = f"stopped {found['RestartCount'] + 1} times (exit code {state['ExitCode']}): {last_error(log)}"
    stage = next((label for pattern, label in STAGES if re.search(pattern, log)), "importing vLLM")
    begun = state.get("StartedAt", "")[:19]
    try:
        seconds = f"{time.time() - time.mktime(time.strptime(begun, '%Y-%m-%dT%H:%M:%S')) + time.timezone:.0f} s"
    except ValueError:
        seconds = ""
    return {"name": name, "ready": False, "fatal": fatal, "why": why, "progress": f"{stage} {seconds}".strip()}


def report(given: dict[str, Any]) -> dict[str, Any]:
    """Look at all; `ready` when all are, `settled` when waiting longer changes nothing."""
    patient_until = time.monotonic() + given["patience"]
    while time.monotonic() < patient_until and any(
        one_token(c["url"], c["served_names"][0], given["timeout"]) for c in given["containers"]
    ):
        time.sleep(0.2)
    states = [look(c, given["timeout"]) for c in given["containers"]]
    fatal = [f"{s['name']}: {s['fatal']}" for s in states if s["fatal"]]
    waiting = [s for s in states if not s["ready"]]
    late = "not ready: " + ", ".join(f"{s['name']} ({s['progress']})" for s in waiting) if waiting else ""
    return {
        "ready": not waiting,
        "settled": not waiting or bool(fatal),
        "fatal": fatal,
        "msg": "; ".join(fatal) or late,
        "progress": " | ".join(f"{s['name']}: {s['progress']}" for s in states),
        "instances": states,
    }


if __name__ == "__main__":
    print(json.dumps(report(json.loads(sys.argv[1]))))
