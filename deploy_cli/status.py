"""How the instances of a site are: what the hosts and HAProxy said, as one list of rows and one table. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"healthy": "green", "starting": "yellow", "not routed": "yellow", "draining": "yellow"}


def merge(plan: Mapping[str, Any], hosts: Mapping[str, Any], gateways: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what was asked into one document.

    hosts: {host: {"instances": {name: facts}} | {"unreachable": true} | {"error": text}} of the serving hosts.
    gateways: {host: {"servers": {pool: {instance: {"status", "sessions", "queued"}}}} | {"error": text}}.
    A host that was not asked (`--limit`) is missing in both; its instances are left out.
    """
    rows = [
        _row(instance, hosts[instance["host"]], gateways) for instance in plan["instances"] if instance["host"] in hosts
    ]
    return {
        "version": 1,
        "site": plan.get("site"),
        "base_url": plan.get("gateway", {}).get("base_url"),
        "jaeger_url": plan.get("telemetry", {}).get("jaeger_url"),
        "ok": bool(rows) and all(row["state"] == "healthy" for row in rows),
        "instances": rows,
        "gateways": {host: told.get("error") or "ok" for host, told in gateways.items()},
    }


def located(instances: Sequence[Mapping[str, Any]], engines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put planned instances where they really run.

    Without a look at the hosts the plan knows only what was declared, and an instance keeps its place when that
    changes.
    engines: what each host that answered told, {instance: {host, address, port}}. What runs nowhere stays as planned.
    """
    placed = []
    for instance in instances:
        found = [told[instance["name"]] for told in engines if instance["name"] in told]
        real = next((one for one in found if one["host"] == instance["host"]), found[0] if found else None)
        where = {"host": real["host"], "publish_address": real["address"], "port": real["port"]} if real else {}
        placed.append({**instance, **{key: value for key, value in where.items() if value}})
    return placed


def _row(instance: Mapping[str, Any], host: Mapping[str, Any], gateways: Mapping[str, Any]) -> dict[str, Any]:
    facts: Mapping[str, Any] = (host.get("instances") or {}).get(instance["name"], {})
    routed = [_routed(instance, told) for told in gateways.values()]
    hits, queries = facts.get("prefix_hits"), facts.get("prefix_queries")
    return {
        "name": instance["name"],
        "model": instance["model"],
        "host": instance["host"],
        "port": instance["port"],
        "state": _state(host, facts, [route["status"] for route in routed]),
        "container": facts.get("container"),
        "restarts": facts.get("restarts"),
        "health": facts.get("health"),
        "running": _whole(facts.get("running")),
        "waiting": _whole(facts.get("waiting")),
        "kv_cache_usage": facts.get("kv_cache_usage"),
        "prefix_hit_rate": hits / queries if queries else None,
        "gateway": _agreed([route["status"] for route in routed]),
        "gateway_sessions": sum(route.get("sessions", 0) for route in routed),
    }


def _routed(instance: Mapping[str, Any], gateway: Mapping[str, Any]) -> dict[str, Any]:
    if "servers" not in gateway:
        return {"status": "no answer"}
    known: Mapping[str, Any] = gateway["servers"].get(instance["pool"], {})
    return dict(known.get(instance["name"], {"status": "absent"}))


def _agreed(statuses: Sequence[str]) -> str | None:
    """One word when all gateways say the same, else each word."""
    return " / ".join(sorted(set(statuses))) if statuses else None


def _state(host: Mapping[str, Any], facts: Mapping[str, Any], routes: Sequence[str]) -> str:
    """Say in one word how an instance is; only `healthy` means that it serves."""
    if host.get("unreachable"):
        return "unreachable"
    if not facts:
        return "unknown"
    container, health = facts.get("container"), facts.get("health")
    if container == "absent":
        return "absent"
    if container not in ("running", "no docker"):
        return "down"
    if health == "no answer":
        return "starting" if container == "running" else "down"
    if health != "ok":
        return "unhealthy"
    if any(route.startswith(("DRAIN", "MAINT")) for route in routes):
        return "draining"
    # "UP 1/2": going down or coming up, still in use. "no check": HAProxy uses it unasked.
    return "healthy" if routes and all(route.startswith(("UP", "no check")) for route in routes) else "not routed"


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


HEAD = ("INSTANCE", "MODEL", "HOST", "STATE", "RUN", "WAIT", "KV", "HITS", "HAPROXY")
NUMBERS = {"RUN", "WAIT", "KV", "HITS"}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row as texts, in the table's order. The state says why, where one word would not."""
    facts = [row["container"], row["health"]] if row["state"] in ("down", "starting", "unhealthy") else []
    restarts = [f"{row['restarts']} restarts"] if row["restarts"] else []
    why = ", ".join(text for text in facts + restarts if text)
    return [
        row["name"],
        row["model"],
        row["host"],
        f"{row['state']} ({why})" if why else row["state"],
        _number(row["running"]),
        _number(row["waiting"]),
        _percent(row["kv_cache_usage"]),
        _percent(row["prefix_hit_rate"]),
        row["gateway"] or "-",
    ]


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"


def lines(document: Mapping[str, Any]) -> list[str]:
    """Return the table as plain text lines, for the log and for bare ansible-playbook."""
    rows = [list(HEAD), *(cells(row) for row in document["instances"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def table(document: Mapping[str, Any]) -> Table:
    """Return the table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEAD:
        found.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in document["instances"]:
        style = STYLES.get(row["state"], "red")
        found.add_row(
            *(Text(text, style if name == "STATE" else "") for name, text in zip(HEAD, cells(row), strict=True))
        )
    return found


def client_env(plan: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what a client needs: base URL, the first API key (left out when the site has none), the trace page."""
    key = {"OPENAI_API_KEY": str(keys[0]["key"])} if keys else {}
    return {"OPENAI_BASE_URL": plan["gateway"]["base_url"], **key, "JAEGER_URL": plan["telemetry"]["jaeger_url"]}


def env_lines(values: Mapping[str, str]) -> list[str]:
    """Return NAME=value lines that a shell and a .env reader both take."""
    return [f"{name}={shlex.quote(value)}" for name, value in values.items()]
