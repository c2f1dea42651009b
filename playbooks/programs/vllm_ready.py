"""Ask engines for a token, and say what those that cannot answer yet are doing.

Sent to the host as it is, see action_plugins/vllm_ready.py, which also says what the arguments are.
"""

from __future__ import annotations

import json
import math
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
NO_NUMBERS = "the probabilities of its tokens are no numbers: its weights or its GPU are broken"


def docker(*args: str) -> str:
    """Output of one docker command, standard error included."""
    done = subprocess.run(["docker", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def one_token(url: str, model: str, timeout: int) -> str:
    """Generate one token; an empty string on success, else why not.

    A model that computes nothing but NaN answers with 200 and a token all the same. It is streamed because vLLM writes
    such numbers into a stream only.
    """
    asked = {"model": model, "prompt": "ready", "max_tokens": 1, "temperature": 0, "logprobs": 1, "stream": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(  # noqa: S310 - the plan's own http
        f"{url}/v1/completions", data=json.dumps(asked).encode(), headers=headers
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            chunks = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read()[:200].decode(errors='replace')}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    if any("error" in chunk for chunk in chunks):
        return str(next(chunk["error"] for chunk in chunks if "error" in chunk))[:200]
    choices = [choice for chunk in chunks for choice in chunk.get("choices") or []]
    told = [p for choice in choices for p in (choice.get("logprobs") or {}).get("token_logprobs") or []]
    if not told:
        return "answered without a token"
    return "" if all(isinstance(p, (int, float)) and math.isfinite(p) for p in told) else NO_NUMBERS


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


def look(container: dict[str, Any], timeout: int, restarts: int | None) -> dict[str, Any]:
    """State of one engine: ready, or what it is doing, or why it will not come.

    restarts: how many there were at the first look; None when this is it. One that Docker has restarted in the past may
    well come, one that goes on to stop will not.
    """
    name = container["name"]
    text = docker("inspect", name)
    if not text:
        return {"name": name, "ready": False, "fatal": "no such container", "progress": "absent", "restarts": 0}
    found = json.loads(text)[0]
    state, count = found["State"], int(found["RestartCount"])
    if state["Running"]:
        why = one_token(container["url"], container["served_names"][0], timeout)
        if not why:
            return {"name": name, "ready": True, "fatal": "", "progress": "ready", "restarts": count}
    else:
        why = state["Status"]
    log = docker("logs", "--tail", "400", name)
    fatal = why if why == NO_NUMBERS else ""
    goes_on = count >= CRASHES_THAT_TELL and restarts is not None and count > restarts
    if goes_on or state["Status"] in ("exited", "dead"):
        fatal = f"stopped {count + 1} times (exit code {state['ExitCode']}): {last_error(log)}"
    stage = next((label for pattern, label in STAGES if re.search(pattern, log)), "importing vLLM")
    begun = state.get("StartedAt", "")[:19]
    try:
        seconds = f"{time.time() - time.mktime(time.strptime(begun, '%Y-%m-%dT%H:%M:%S')) + time.timezone:.0f} s"
    except ValueError:
        seconds = ""
    progress = f"{stage} {seconds}".strip()
    return {"name": name, "ready": False, "fatal": fatal, "why": why, "progress": progress, "restarts": count}


def report(given: dict[str, Any]) -> dict[str, Any]:
    """Look at all; `ready` when all are, `settled` when waiting longer changes nothing."""
    patient_until = time.monotonic() + given["patience"]
    while time.monotonic() < patient_until and any(
        one_token(c["url"], c["served_names"][0], given["timeout"]) for c in given["containers"]
    ):
        time.sleep(0.2)
    states = [look(c, given["timeout"], given["restarts"].get(c["name"])) for c in given["containers"]]
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
