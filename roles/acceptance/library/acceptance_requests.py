#!/usr/bin/python
"""Sends the acceptance's requests through the gateway and says what came back; it judges nothing."""

from __future__ import annotations

import secrets
import time

from ansible.module_utils.acceptance_http import as_json, call, error_text, instance_counters, stream
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: acceptance_requests
short_description: Sends the acceptance's requests through the gateway
description: Run on a gateway host. A request that fails is a measurement; the module itself does not fail for it.
author: deployctl
options:
  base_url: {description: "The gateway's address with its /v1.", type: str, required: true}
  api_key: {description: "A key that the gateway accepts.", type: str, required: true}
  models:
    description: The models to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Name of the model.", type: str, required: true}
      served_names: {description: "The name and its aliases.", type: list, elements: str, required: true}
      tool:
        description: The function it is made to call, as a client writes it; empty when it calls none.
        type: dict
        required: true
      instances:
        description: Its instances.
        type: list
        elements: dict
        required: true
        suboptions:
          name: {description: "Name of the instance.", type: str, required: true}
          url: {description: "Its own address, as the gateway reaches it.", type: str, required: true}
  tool_attempts: {description: "Most tool calls asked of a model.", type: int, required: true}
  tool_tokens: {description: "Most tokens of a tool call.", type: int, required: true}
  closed_paths: {description: "Method and path that must be closed.", type: list, elements: dict, required: true}
  stream_tokens: {description: "Tokens of the streamed answer.", type: int, required: true}
  stream_first_share_max: {description: "Share of the answer's time for its first chunk.", type: float, required: true}
  stream_attempts: {description: "Most streamed answers asked of a model.", type: int, required: true}
  prefix_characters: {description: "Length of the repeated prefix.", type: int, required: true}
  prefix_rounds: {description: "How often each instance should see the prefix.", type: int, required: true}
  timeout: {description: "Seconds to wait for one answer.", type: float, required: true}
"""
EXAMPLES = r"""
- name: Requests are sent
  acceptance_requests: {base_url: "http://127.0.0.1:8000/v1", api_key: "{{ key }}", models: []}
"""
RETURN = r"""
measured: {description: "What each request brought.", type: dict, returned: always}
"""

SENTENCE = "The harbour keeps its lamp lit, entry %d of the log, and every ship that passes writes down the hour. "


class Gateway:
    """The gateway as a client with the key sees it."""

    def __init__(self, base_url, api_key, timeout):
        self.base = base_url.rstrip("/")
        self.root = self.base[:-3] if self.base.endswith("/v1") else self.base
        self.timeout = timeout
        self.key = {"Authorization": "Bearer " + api_key}

    def chat(self, body, headers=None):
        """One chat completion, not streamed."""
        return call("POST", self.base + "/chat/completions", body, dict(self.key, **(headers or {})), self.timeout)


def question(model, tokens, text="Say something about the sea.", **more):
    """The body of a chat request."""
    return dict({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}, **more)


def _problem(answer):
    """Why there is no good answer: the connection's fault, or what the server said."""
    return answer["error"] or error_text(answer["text"])


def refusal(answer):
    """A refused request: its status and the error object a client would read."""
    error = as_json(answer["text"]).get("error")
    return {
        "status": answer["status"],
        "error_object": error if isinstance(error, dict) else {},
        "error": _problem(answer),
    }


def list_models(gateway):
    """The identifiers that /v1/models lists."""
    answer = call("GET", gateway.base + "/models", headers=gateway.key, timeout=gateway.timeout)
    data = as_json(answer["text"]).get("data")
    ids = [str(entry.get("id")) for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return {"status": answer["status"], "ids": ids, "error": "" if ids else _problem(answer)}


def ask(gateway, served):
    """One short answer under this name."""
    answer = gateway.chat(question(served, 16))
    body = as_json(answer["text"])
    usage, choices = body.get("usage") or {}, body.get("choices") or [{}]
    return {
        "status": answer["status"],
        "seconds": answer["seconds"],
        "model": body.get("model", ""),
        "completion_tokens": usage.get("completion_tokens") or 0,
        "prompt_tokens": usage.get("prompt_tokens") or 0,
        "finish_reason": choices[0].get("finish_reason") or "",
        "error": "" if answer["status"] == 200 else _problem(answer),
    }


def ask_streamed(gateway, model, tokens, share, attempts):
    """Streamed answers of so many tokens, until one has its first chunk within this share of its time.

    An engine on few, busy cores now and then hands over many tokens at once; a gateway that buffers does so always.
    """
    body = question(model, tokens, stream=True, ignore_eos=True)
    tries = []
    for _attempt in range(attempts):
        found = stream(gateway.base + "/chat/completions", body, gateway.key, gateway.timeout)
        arrivals = found.pop("arrivals")
        first, last = (arrivals[0], arrivals[-1]) if arrivals else (None, None)
        tries.append(dict(found, chunks=len(arrivals), first_seconds=first, last_seconds=last))
        if found["status"] != 200 or (arrivals and first <= share * last):
            break
    return tries


def ask_tool(gateway, model, tool, tokens, attempts):
    """Forced calls of the tool, until one has arguments that are whole JSON."""
    choice = {"type": "function", "function": {"name": tool["function"]["name"]}}
    tries = []
    for _attempt in range(attempts):
        body = question(model, tokens, "What is the weather in Lisbon?", tools=[tool], tool_choice=choice)
        answer = gateway.chat(body)
        message = (as_json(answer["text"]).get("choices") or [{}])[0].get("message") or {}
        function = (message.get("tool_calls") or [{}])[0].get("function") or {}
        tries.append(
            {
                "status": answer["status"],
                "name": function.get("name") or "",
                "arguments": (function.get("arguments") or "")[:4000],
                "error": "" if answer["status"] == 200 else _problem(answer),
            }
        )
        if as_json(tries[-1]["arguments"]):
            break
    return tries


def repeat_prefix(gateway, model, characters, rounds):
    """Requests that share a long beginning nobody has sent before: the cache's counters before and after them."""
    urls = {instance["name"]: instance["url"].rstrip("/") for instance in model["instances"]}
    sentences = "".join(SENTENCE % number for number in range(characters // 60 + 1))
    prefix = (f"Log {secrets.token_hex(8)}. " + sentences)[:characters]
    before = {name: instance_counters(url, gateway.timeout) for name, url in urls.items()}
    statuses, prompt_tokens, error = [], 0, ""
    for number in range(rounds * max(1, len(urls))):
        body = question(model["name"], 1, f"Which hour is entry {number}?")
        body["messages"].insert(0, {"role": "system", "content": prefix})
        answer = gateway.chat(body)
        statuses.append(answer["status"])
        if answer["status"] == 200:
            prompt_tokens = (as_json(answer["text"]).get("usage") or {}).get("prompt_tokens") or prompt_tokens
        else:
            error = _problem(answer)
    after = _settled(urls, before, gateway.timeout)
    return {
        "requests": len(statuses),
        "answered": statuses.count(200),
        "prompt_tokens": prompt_tokens,
        "before": before,
        "after": after,
        "error": error,
    }


def _settled(urls, before, timeout):
    """Counters once they have risen; an engine reports them a moment after its answer (5 s are waited at most)."""
    deadline = time.monotonic() + 5
    while True:
        after = {name: instance_counters(url, timeout) for name, url in urls.items()}
        risen = any((after[name]["prefix_hits"] or 0) > (before[name]["prefix_hits"] or 0) for name in urls)
        if risen or time.monotonic() > deadline:
            return after
        time.sleep(0.5)


def try_closed(gateway, entry):
    """A path that must be closed, asked for with a good key."""
    method = entry["method"]
    body = {"model": entry.get("model", ""), "prompt": "x"} if method == "POST" else None
    answer = call(method, gateway.root + entry["path"], body, gateway.key, gateway.timeout)
    return {
        "method": method,
        "path": entry["path"],
        "status": answer["status"],
        "server": answer["server"],
        "error": answer["error"],
    }


def measure(options):
    """All requests, one after another."""
    gateway = Gateway(options["base_url"], options["api_key"], options["timeout"])
    models = options["models"]
    first = models[0]["name"] if models else ""
    chat = gateway.base + "/chat/completions"
    stranger = {"Authorization": "Bearer sk-" + secrets.token_hex(16)}
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    # The last field, 01, says "sampled": without it a sampler that follows its parent drops the span.
    traced = gateway.chat(question(first, 16), {"traceparent": f"00-{trace_id}-{span_id}-01"})
    return {
        "models_list": list_models(gateway),
        "answers": {name: ask(gateway, name) for model in models for name in model["served_names"]},
        "streams": {
            model["name"]: ask_streamed(
                gateway,
                model["name"],
                options["stream_tokens"],
                options["stream_first_share_max"],
                options["stream_attempts"],
            )
            for model in models
        },
        "tool_calls": {
            model["name"]: ask_tool(
                gateway, model["name"], model["tool"], options["tool_tokens"], options["tool_attempts"]
            )
            for model in models
            if model["tool"]
        },
        "no_key": refusal(call("POST", chat, question(first, 1), {}, gateway.timeout)),
        "wrong_key": refusal(call("POST", chat, question(first, 1), stranger, gateway.timeout)),
        "unknown_model": refusal(gateway.chat(question("no-such-model-" + secrets.token_hex(4), 1))),
        "closed_paths": [try_closed(gateway, dict(entry, model=first)) for entry in options["closed_paths"]],
        "trace": {
            "trace_id": trace_id,
            "model": first,
            "status": traced["status"],
            "error": "" if traced["status"] == 200 else _problem(traced),
        },
        "prefix": {
            model["name"]: repeat_prefix(gateway, model, options["prefix_characters"], options["prefix_rounds"])
            for model in models
        },
    }


def main():
    """Entry point of the module."""
    text, number = {"type": "str", "required": True}, {"type": "int", "required": True}
    instances = {"type": "list", "elements": "dict", "required": True, "options": {"name": text, "url": text}}
    model = {
        "name": text,
        "served_names": {"type": "list", "elements": "str", "required": True},
        "tool": {"type": "dict", "required": True},
        "instances": instances,
    }
    module = AnsibleModule(
        argument_spec={
            "base_url": text,
            "api_key": {"type": "str", "required": True, "no_log": True},
            "models": {"type": "list", "elements": "dict", "required": True, "options": model},
            "tool_attempts": number,
            "tool_tokens": {"type": "int", "required": True, "no_log": False},
            "closed_paths": {"type": "list", "elements": "dict", "required": True},
            "stream_tokens": {"type": "int", "required": True, "no_log": False},
            "stream_first_share_max": {"type": "float", "required": True},
            "stream_attempts": number,
            "prefix_characters": number,
            "prefix_rounds": number,
            "timeout": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, measured=measure(module.params))


if __name__ == "__main__":
    main()
