"""The plan and what still runs -> pools and text that is safe inside an HAProxy configuration."""

from __future__ import annotations

import json
import re
from typing import Any


def haproxy_quote(text: str) -> str:
    """One word of a configuration line: nothing in it is special to HAProxy. ValueError on control characters."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("control characters cannot stand in an HAProxy configuration")
    return "'" + text.replace("'", "'\\''") + "'"


def haproxy_format(text: str) -> str:
    """The same for a place where HAProxy expands %[...]: percent signs are doubled."""
    return haproxy_quote(text.replace("%", "%%"))


def haproxy_model_entry(name: str) -> dict[str, Any]:
    """One model as OpenAI's list has it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "deployctl"}


def openai_error(message: str, kind: str, code: str | None, param: str | None = None) -> str:
    """An error body as OpenAI's API has it, as JSON text."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def haproxy_pools(
    models: list[dict[str, Any]], instances: list[dict[str, Any]], leaving: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Which names are answered by which servers: `[{name, names, servers, leaving}]`, the plan's models first.

    While one model takes another's place, an alias of both is answered by both, and the old name by the old instances
    (`leaving`: instances that the plan no longer holds and that still serve; each with its `served_names`). A pool that
    only such instances are in is `leaving`: once they are gone, nobody comes.
    """
    pools: dict[tuple[str, ...], dict[str, Any]] = {}
    taken = {model["pool"] for model in models}

    def add(pool: str, name: str, servers: list[dict[str, Any]]) -> None:
        key = tuple(sorted(server["name"] for server in servers))
        if key not in pools:
            unique, number = pool, 2
            while unique in {p["name"] for p in pools.values()}:
                unique, number = f"{pool}-{number}", number + 1
            pools[key] = {
                "name": unique,
                "names": [],
                "servers": servers,
                "leaving": bool(servers) and all(s in leaving for s in servers),
            }
        pools[key]["names"].append(name)

    for model in models:
        own = [i for i in instances if i["pool"] == model["pool"]]
        for name in model["served_names"]:
            add(model["pool"], name, own + [i for i in leaving if name in i["served_names"]])
    known = {name for model in models for name in model["served_names"]}
    for old in leaving:
        for name in [n for n in old["served_names"] if n not in known]:
            known.add(name)
            pool = old["pool"] if old["pool"] not in taken else f"{old['pool']}-leaving"
            add(pool, name, [i for i in leaving if name in i["served_names"]])
    return list(pools.values())


def haproxy_newcomers(moves: list[dict[str, Any]], serving: list[dict[str, Any]]) -> list[str]:
    """Instances that no client may reach yet: new servers, and canaries that a stopped run has left unjudged.

    moves, serving: what is to move and what runs on all hosts, as the role vllm tells it. An unjudged one goes on where
    nobody else serves its model.
    """
    new = [move for move in moves if move["newcomer"]]
    names = {move["new"]["name"] for move in new if move["unjudged"]}
    others = {c["model"] for c in serving if c["running"] and not c["previous"] and c["name"] not in names}
    return [move["new"]["instance"] for move in new if not move["unjudged"] or move["new"]["model"] in others]


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Name -> function."""
        return {
            "haproxy_quote": haproxy_quote,
            "haproxy_format": haproxy_format,
            "haproxy_model_entry": haproxy_model_entry,
            "haproxy_newcomers": haproxy_newcomers,
            "haproxy_pools": haproxy_pools,
            "openai_error": openai_error,
        }
