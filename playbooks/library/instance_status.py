#!/usr/bin/python
"""Ask the vLLM instances of this host how they are: container, health, and the numbers of their metrics page."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: instance_status
short_description: State of the vLLM instances of a host
description:
  - Looks only; nothing is changed, and what does not answer is told, not failed.
options:
  instances:
    description: The plan's instances on this host; C(name), C(container), C(publish_address) and C(port) are read.
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds that each question may take.
    type: int
    default: 5
author:
  - deployctl
"""

# Sums over the engines of an instance; the share of the cache is that of the fullest.
SUMS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:prefix_cache_hits_total": "prefix_hits",
    "vllm:prefix_cache_queries_total": "prefix_queries",
}
SHARE = "vllm:kv_cache_usage_perc"


def container_states(names: list[str], timeout: int) -> dict[str, dict]:
    """The state of each container; `absent` for one that Docker does not know, `no docker` when it does not answer."""
    if not names:
        return {}
    words = ["docker", "inspect", "--type", "container", *names]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
        found = json.loads(done.stdout or "[]")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {name: {"container": "no docker"} for name in names}
    reached = not done.returncode or "no such" in done.stderr.lower()
    states = {name: {"container": "absent" if reached else "no docker"} for name in names}
    for entry in found:
        state = entry["State"]
        states[entry["Name"].lstrip("/")] = {
            "container": state["Status"],
            "restarts": entry.get("RestartCount", 0),
            "started": state.get("StartedAt", ""),
            "container_exit_code": state.get("ExitCode"),
        }
    return states


def get(url: str, timeout: int) -> tuple[int, str]:
    """Status and text of a page; status 0 when nothing answers. Never through a proxy: these are our own addresses."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, ValueError):
        return 0, ""


def numbers(text: str) -> dict[str, float]:
    """The few numbers we show, out of a page in Prometheus's text format."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name not in SUMS and name != SHARE:
            continue
        try:
            value = float(line.rsplit(" ", 1)[1])
        except (IndexError, ValueError):
            continue
        if name == SHARE:
            found["kv_cache_usage"] = max(found.get("kv_cache_usage", 0.0), value)
        else:
            found[SUMS[name]] = found.get(SUMS[name], 0.0) + value
    return found


def ask(instance: dict, timeout: int) -> dict:
    """Health and numbers of one instance."""
    base = "http://{}:{}".format(instance["publish_address"], instance["port"])
    status, _text = get(base + "/health", timeout)
    health = "ok" if status == 200 else f"http {status}" if status else "no answer"
    return {"health": health, **(numbers(get(base + "/metrics", timeout)[1]) if status else {})}


def main() -> None:
    """Answer with `instances`: a dict by instance name."""
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    instances, timeout = module.params["instances"], module.params["timeout"]
    states = container_states([instance["container"] for instance in instances], timeout)
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(lambda instance: ask(instance, timeout), instances))
    told = {
        instance["name"]: {**states[instance["container"]], **answer}
        for instance, answer in zip(instances, answers)  # noqa: B905 - hosts may run Python 3.9
    }
    module.exit_json(changed=False, instances=told)


if __name__ == "__main__":
    main()
