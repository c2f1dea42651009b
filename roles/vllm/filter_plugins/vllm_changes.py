"""What a host has against what it should have -> what has to happen, in which order; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PREVIOUS = "-previous"
"""Ending of the name under which an instance that was replaced is kept until the change is accepted."""


def vllm_have(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The engine's list of containers -> what each is to us, as its labels say."""
    found = []
    for container in containers:
        name, labels = container["Names"][0].lstrip("/"), container["Labels"]
        # From the label: a stopped container has no ports.
        address, _, port = labels.get("deployctl.address", "").rpartition(":")
        found.append(
            {
                "name": name,
                "instance": labels.get("deployctl.instance", name),
                "model": labels.get("deployctl.model", ""),
                "names": labels.get("deployctl.names", "").split("\n"),
                "pool": labels.get("deployctl.pool", ""),
                "hash": labels.get("deployctl.spec", ""),
                "devices": [d for d in labels.get("deployctl.devices", "").split(",") if d],
                "running": container["State"] == "running",
                "previous": name.endswith(PREVIOUS),
                "address": address,
                "port": int(port or 0),
                "url": f"http://{address}:{port}" if port else "",
            }
        )
    return found


def vllm_changes(
    wanted: list[dict[str, Any]], have: list[dict[str, Any]], tampered: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Sort what has to happen on one host.

    wanted: containers as `vllm_container` makes them. have: as `vllm_have` makes them. tampered: names of containers
    that somebody changed after they were made. Returns
    `start`: wanted ones whose devices are free, or that are there and stopped; `moves`: `{new, old, canary}`, a wanted
    one and the names of those that make room for it, in the order in which they may happen; `kept`: wanted ones that
    run as they should; `surplus`: names of those that nobody wants any more; `unfinished`: names that a roll that was
    cut short left behind.
    """
    there = {c["name"]: c for c in have if not c["previous"]}
    names = {spec["name"] for spec in wanted}
    leaving = {name: c for name, c in there.items() if name not in names}
    start, moves, kept, displaced = [], [], [], set()
    for spec in wanted:
        found = there.get(spec["name"])
        if found and found["hash"] == spec["hash"] and spec["name"] not in tampered:
            (kept if found["running"] else start).append(spec)
            continue
        on_its_devices = [n for n, c in leaving.items() if set(c["devices"]) & set(spec["devices"])]
        old = ([spec["name"]] if found else []) + [n for n in on_its_devices if n not in displaced]
        displaced.update(old)
        if old or on_its_devices:
            moves.append({"new": spec, "old": old})
        else:
            start.append(spec)
    # What does not serve anyway goes first: nobody misses it.
    moves.sort(key=lambda move: any(there[n]["running"] for n in move["old"]))
    seen: set[str] = set()
    for move in moves:
        move["canary"] = move["new"]["model"] not in seen
        seen.add(move["new"]["model"])
    return {
        "start": start,
        "moves": moves,
        "kept": kept,
        "surplus": sorted(set(leaving) - displaced),
        "unfinished": sorted(c["name"] for c in have if c["previous"]),
    }


def vllm_leaving(have: list[dict[str, Any]], wanted: list[str]) -> list[dict[str, Any]]:
    """Instances of one host that serve and that the plan no longer holds, as the gateway needs them."""
    return [
        {
            "name": c["instance"],
            "pool": c["pool"],
            "served_names": c["names"],
            "address": c["address"],
            "port": c["port"],
        }
        for c in have
        if c["running"] and not c["previous"] and c["instance"] not in wanted and c["port"] and c["pool"]
    ]


def vllm_restores(have: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instances that were set aside on one host, each with those that took its place; what is broken comes first."""
    there = [c for c in have if not c["previous"]]
    found = []
    for old in (c for c in have if c["previous"]):
        name = old["name"].removesuffix(PREVIOUS)
        new = [c for c in there if c["name"] == name or set(c["devices"]) & set(old["devices"])]
        found.append({**old, "name": name, "served_names": old["names"], "replaced_by": new})
    return sorted(found, key=lambda f: all(c["running"] for c in f["replaced_by"]))


def vllm_gaps(have: list[list[dict[str, Any]]], moves: list[list[dict[str, Any]]]) -> list[str]:
    """Names that nobody answers for a while, because all that serve them make room in one move; a list of each host.

    have: as `vllm_have` makes them. moves: as `vllm_changes` makes them.
    """
    serving: dict[str, int] = {}
    for container in (c for host in have for c in host if c["running"] and not c["previous"]):
        for name in container["names"]:
            serving[name] = serving.get(name, 0) + 1
    gaps = set()
    for host, planned in zip(have, moves, strict=True):
        there = {c["name"]: c for c in host}
        for move in planned:
            lost: dict[str, int] = {}
            for name in (n for old in move["old"] if there[old]["running"] for n in there[old]["names"]):
                lost[name] = lost.get(name, 0) + 1
            # A name that goes for good has no gap: it ends.
            gaps |= {n for n, count in lost.items() if count == serving[n] and n in move["new"]["served_names"]}
    return sorted(gaps)


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Name -> function."""
        return {
            "vllm_have": vllm_have,
            "vllm_changes": vllm_changes,
            "vllm_leaving": vllm_leaving,
            "vllm_restores": vllm_restores,
            "vllm_gaps": vllm_gaps,
        }
