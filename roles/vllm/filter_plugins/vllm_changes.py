"""What a host has against what it should have -> what has to happen, in which order; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PREVIOUS = "-previous"
"""Ending of the name under which an instance that was replaced is kept until the change is accepted."""


def vllm_have(containers: list[dict[str, Any]], planned: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The engine's list of containers -> what each is to us, as its labels say.

    planned: instances of the plan. One that listens elsewhere than its successor of the same name has another `server`
    at the gateway, so that both can be there at once.
    """
    addresses = {one["name"]: f"{one['publish_address']}:{one['port']}" for one in planned}
    found = []
    for container in containers:
        name, labels = container["Names"][0].lstrip("/"), container["Labels"]
        # From the label: a stopped container has no ports.
        listens = labels.get("deployctl.address", "")
        address, _, port = listens.rpartition(":")
        instance = labels.get("deployctl.instance", name)
        found.append(
            {
                "id": container["Id"],
                "name": name,
                "instance": instance,
                "server": instance if addresses.get(instance, listens) == listens else f"{instance}-before",
                "model": labels.get("deployctl.model", ""),
                "names": labels.get("deployctl.names", "").split("\n"),
                "pool": labels.get("deployctl.pool", ""),
                "hash": labels.get("deployctl.spec", ""),
                "devices": [d for d in labels.get("deployctl.devices", "").split(",") if d],
                # Containers that made room for this one, by their ids: names and devices may be another's by now.
                "instead_of": [i for i in labels.get("deployctl.instead_of", "").split(",") if i],
                "running": container["State"] == "running",
                "previous": name.endswith(PREVIOUS),
                "address": address,
                "port": int(port or 0),
                "url": f"http://{address}:{port}" if port else "",
            }
        )
    return found


def replacements(old: dict[str, Any], have: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that stand where a container stood that was set aside."""
    name = old["name"].removesuffix(PREVIOUS)
    return [c for c in have if not c["previous"] and (c["name"] == name or old["id"] in c["instead_of"])]


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two have a device in common."""
    return bool(set(one["devices"]) & set(other["devices"]))


def vllm_changes(
    wanted: list[dict[str, Any]], have: list[dict[str, Any]], tampered: Sequence[str] = (), silent: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Sort what has to happen on one host.

    wanted: containers as `vllm_container` makes them. have: as `vllm_have` makes them. tampered: names of containers
    that somebody changed after they were made. silent: names of those that run and generate no token. Returns
    `start`: wanted ones whose devices are free, or that are there and stopped; `moves`: `{new, old, dropped, unjudged,
    newcomer, canary, compare, serves}`, a wanted one and the names of those that make room for it, in the order in
    which they may happen; `kept`: wanted ones that run as they should; `surplus`: `{name, dropped}` of those that
    nobody wants; `unfinished`: names that a roll that was cut short left behind; `asked`: those that make room and run.

    Who takes over a name that clients use from one that leaves is a move too, also where its devices are free: it is
    judged first, and goes again if the other one comes back. So is a further replica of a model whose others change.

    `dropped` are those that no verdict has accepted: they stand where another one was set aside, which is the
    one to go back to. A lone such one of a model, that is as wanted, may be a canary that nobody has judged: a move
    that is `unjudged` replaces nothing and judges it. A `newcomer` is no server of the gateway yet. `compare` is the
    one that a canary is measured against. `serves`: clients lose a replica of the model while it is replaced.
    """
    there = {c["name"]: c for c in have if not c["previous"]}
    aside = [c for c in have if c["previous"]]
    specs = {spec["name"]: spec for spec in wanted}
    leaving = {name: c for name, c in there.items() if name not in specs}
    outdated = {n: c for n, c in there.items() if n in specs and (c["hash"] != specs[n]["hash"] or n in tampered)}
    going = {**leaving, **outdated}
    serving = {name for name, c in going.items() if c["running"] and name not in silent}
    unjudged = {
        c["name"]: [a["id"] for a in aside if c in replacements(a, have)]
        + [a["id"] for a in going.values() if a["id"] in c["instead_of"]]
        for c in there.values()
    }
    start, moves, kept, displaced = [], [], [], set()
    waits: set[str] = set()
    # Set aside without a successor, by a run that no verdict has ended: who gets their devices makes room again.
    alone = [a for a in aside if not replacements(a, have)]
    for spec in wanted:
        found = there.get(spec["name"])
        if found and spec["name"] not in outdated:
            alike = [n for n, ids in unjudged.items() if ids and there[n]["model"] == found["model"]]
            if found["running"] and alike == [spec["name"]]:
                again = {**spec, "instead_of": found["instead_of"]}
                moves.append({"new": again, "old": [], "dropped": [], "unjudged": True})
            else:
                (kept if found["running"] else start).append(spec)
            continue
        # Who is to have the same devices too lives beside it; who gets others makes room first.
        here = ([spec["name"]] if found else []) + [
            n for n, c in going.items() if overlap(c, spec) and not (n in outdated and overlap(specs[n], spec))
        ]
        old = [n for n in here if n not in displaced]
        displaced.update(old)
        sat_here = [a["id"] for a in alone if overlap(a, spec)]
        room = here or [n for n, c in leaving.items() if c["running"] and set(c["names"]) & set(spec["served_names"])]
        room = room or [n for n, c in outdated.items() if n in serving and c["model"] == spec["model"]]
        if room:
            instead_of = [i for n in room for i in unjudged[n] or [there[n]["id"]]] + sat_here
            dropped = [n for n in old if unjudged[n]]
            new = {**spec, "instead_of": list(dict.fromkeys(instead_of))}
            waits |= {spec["name"]} if serving & set(here) else set()
            moves.append({"new": new, "old": old, "dropped": dropped, "unjudged": False})
        else:
            start.append({**spec, "instead_of": sat_here})
    # First those that nothing has to stop for: nobody misses what does not serve anyway.
    moves.sort(key=lambda move: move["new"]["name"] in waits)
    seen: set[str] = set()
    for move in moves:
        name, model = move["new"]["name"], move["new"]["model"]
        before = there[name]["server"] if name in there and not move["unjudged"] else ""
        move["newcomer"] = before != move["new"]["instance"]
        move["canary"] = model not in seen
        seen.add(model)
        replicas = [n for n in there if n in serving and there[n]["model"] == model]
        move["compare"] = next(iter([n for n in move["old"] if n in serving] + replicas), "")
        move["serves"] = bool(set(replicas) & set(move["old"]))
    return {
        "start": start,
        "moves": moves,
        "kept": kept,
        "surplus": [{"name": n, "dropped": bool(unjudged[n])} for n in sorted(set(leaving) - displaced)],
        "unfinished": sorted(c["name"] for c in have if c["previous"]),
        "asked": [
            {"name": n, "url": c["url"], "served_names": c["names"]}
            for n, c in going.items()
            if c["running"] and c["url"] and (n in outdated or n in displaced)
        ],
    }


def routed(container: dict[str, Any]) -> dict[str, Any]:
    """A container as the gateway needs it, under the name that its servers have there."""
    return {
        "name": container["server"],
        "pool": container["pool"],
        "served_names": container["names"],
        "address": container["address"],
        "port": container["port"],
    }


def vllm_leaving(have: list[dict[str, Any]], wanted: list[str]) -> list[dict[str, Any]]:
    """Instances of one host that serve and that the plan no longer holds, as the gateway needs them."""
    gone = [c for c in have if c["server"] not in wanted and c["port"] and c["pool"]]
    return [routed(c) for c in gone if c["running"] and not c["previous"]]


def vllm_coming_back(aside: list[dict[str, Any]], wanted: list[str]) -> list[dict[str, Any]]:
    """Of instances that were set aside, as the gateway needs them, those that the plan does not hold under their names.

    aside: as `vllm_restores` makes them.
    """
    return [routed(c) for c in aside if c["server"] not in wanted and c["port"] and c["pool"]]


def vllm_restores(have: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instances that were set aside on one host, each with those that came for it; what is broken comes first.

    `replaced_by`: they have its name or devices and go before it starts; of several the first, the others find their
    place free. `beside`: heirs of its names, elsewhere; they serve until the last of those that come back does.
    """
    found = []
    for old in (c for c in have if c["previous"]):
        name, new = old["name"].removesuffix(PREVIOUS), replacements(old, have)
        # Those that share the devices of its own successor were to live beside it.
        beside_it = [c["name"] for heir in new if heir["name"] == name for c in new if overlap(c, heir) and c != heir]
        in_place = [
            c
            for c in new
            if c["name"] == name or (c["name"] not in beside_it and (not old["devices"] or overlap(c, old)))
        ]
        beside = [c for c in new if c not in in_place]
        found.append({**old, "name": name, "served_names": old["names"], "replaced_by": in_place, "beside": beside})
    found.sort(key=lambda f: all(c["running"] for c in f["replaced_by"]))
    gone: set[str] = set()
    for old, key in [*((old, "replaced_by") for old in found), *((old, "beside") for old in reversed(found))]:
        old[key] = [c for c in old[key] if c["id"] not in gone]
        gone |= {c["id"] for c in old[key]}
    return found


def vllm_waiting_heirs(have: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Instances that came for others of one host which still stand at their place."""
    there = [c for c in have if not c["previous"]]
    return [c for c in there if any(old["id"] in c["instead_of"] for old in there)]


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


def vllm_turns(
    moves: list[dict[str, Any]],
    have: list[dict[str, Any]],
    serving: list[dict[str, Any]],
    gateways: list[dict[str, Any]],
    host: str,
) -> list[dict[str, Any]]:
    """Moves of one host with all that its tasks ask for: a lazy value is reckoned again for every task that uses it.

    moves: as `vllm_changes` makes them. have: as `vllm_have` makes them, of this host. serving: the same of all hosts,
    when the change began. Adds `title` for its tasks; `servers`, names at the gateway of those that make room;
    `compared`, the one that a canary is measured against, or empty; `others`, whether more replicas of its model serve;
    `gateways`; `through`, host and probe socket of the one that asks engines; without any, their own host does.
    """
    there = {c["name"]: c for c in have}
    gate = next(iter(gateways), {"host": host, "probe": ""})
    turns = []
    for number, move in enumerate(moves, 1):
        new, old, against = move["new"], [there[name] for name in move["old"]], there.get(move["compare"], {})
        ids = {c["id"] for c in old}
        alike = [c for c in serving if c["running"] and not c["previous"] and c["model"] == new["model"]]
        canary = ", canary" if move["canary"] else ""
        turns.append(
            {
                **move,
                "title": f"{new['instance']} ({number}/{len(moves)}{canary})",
                "servers": [c["server"] for c in old],
                "compared": against if move["canary"] and against.get("url") else {},
                "others": any(c["id"] not in ids for c in alike),
                "gateways": gateways,
                "through": {"host": gate["host"], "socket": gate["probe"]},
            }
        )
    return turns


def vllm_away(containers: dict[str, list[dict[str, Any]]], hosts: list[str]) -> list[str]:
    """Names that nobody answers for while one of these hosts is emptied; they are emptied one after another.

    containers: the engine's list of each serving host.
    """
    serving = {
        host: {name for c in vllm_have(listed) if c["running"] and not c["previous"] for name in c["names"]}
        for host, listed in containers.items()
    }
    away: set[str] = set()
    for host in hosts:
        away |= serving.get(host, set()).difference(*(names for other, names in serving.items() if other != host))
    return sorted(away)


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Name -> function."""
        return {
            "vllm_have": vllm_have,
            "vllm_changes": vllm_changes,
            "vllm_leaving": vllm_leaving,
            "vllm_coming_back": vllm_coming_back,
            "vllm_restores": vllm_restores,
            "vllm_waiting_heirs": vllm_waiting_heirs,
            "vllm_gaps": vllm_gaps,
            "vllm_turns": vllm_turns,
            "vllm_away": vllm_away,
        }
