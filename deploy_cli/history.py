"""What a site was, run by run: the states of all hosts as one table, and what differs between two. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deploy_cli import states
from deploy_cli.errors import UsageError
from deploy_cli.plan.shapes import GROUPS

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("STATE", "JUDGED", "VERDICT", "MODELS", "SINCE THE ONE BEFORE")


def gather(
    hostvars: Any, groups: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], dict[str, str]]:
    """Return what the site's hosts know.

    The states, newest first; {host: answer of `site_look`} of the hosts that gave one; {host: why} of those that were
    asked and did not answer. Who was not asked (--limit) is in none of them.
    """
    members = list(dict.fromkeys(str(host) for group in GROUPS for host in groups.get(group, ())))
    known = {host: hostvars[host] for host in members}
    answers = {host: values["site_kept"] for host, values in known.items() if values.get("site_kept")}
    kept = [state for answer in answers.values() for state in answer.get("states") or []]
    looks = {host: values["site_seen"] for host, values in known.items() if "look" in (values.get("site_seen") or {})}
    silent: dict[str, str] = {}
    for host, values in known.items():
        for name, answer in (("site_kept", "states"), ("site_seen", "look")):
            told = values.get(name) or {}
            if told and answer not in told and not told.get("skipped"):
                silent.setdefault(host, _why(told))
    return states.merged(kept), looks, silent


def _why(answer: Mapping[str, Any]) -> str:
    if answer.get("unreachable"):
        return "unreachable"
    # Not what the module wrote to its output: that may be part of a state.
    said = [line for line in str(answer.get("module_stderr") or "").splitlines() if line.strip()]
    reason = (said[-1] if said[0].startswith("Traceback") else said[0]) if said else answer.get("msg")
    return " ".join(str(reason or "failed").split())[:200]


def unanswered(silent: Mapping[str, str]) -> str:
    """Name the hosts that did not answer, each with the reason."""
    return f"no answer from {', '.join(f'{host} ({why})' for host, why in silent.items())}"


def current(looks: Mapping[str, Mapping[str, Any]], record: str = "recorded") -> str | None:
    """Return the id of the accepted state that every host that answered is in; None when one is not as it was then.

    record: `recorded`, which a run or an acceptance that came later makes void; `accepted`, which they do not.
    """
    ids = set()
    for look in looks.values():
        recorded = look.get(record) or {}
        ids.add(recorded.get("run") if recorded.get("look") == look["look"] else None)
    return ids.pop() if len(ids) == 1 else None


def document(kept: list[dict[str, Any]], now: str | None, silent: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the history as JSON data, newest first. silent: hosts that did not answer, and why."""
    rows = []
    for place, state in enumerate(kept):
        before = kept[place + 1] if place + 1 < len(kept) else None
        rows.append(
            {
                **{key: state.get(key) for key in ("id", "at", "verdict", "failed_checks", "content", "keys")},
                "current": state["id"] == now,
                "models": [model["name"] for model in state["models"]],
                "images": {image["name"]: image["reference"] for image in state["images"]},
                "changes": states.differences(before, state) if before else [],
            }
        )
    return {"version": 1, "current": now, "states": rows, "unseen": dict(silent or {})}


def compare(kept: list[dict[str, Any]], first: str, second: str) -> list[str]:
    """Return what differs between two states; UsageError when one is not there."""
    pair = []
    for wanted in (first, second):
        named = [s for s in kept if s["id"] == wanted] or [s for s in kept if str(s["id"]).startswith(wanted)]
        if len(named) != 1:
            known = ", ".join(str(state["id"]) for state in kept[:10]) or "none"
            raise UsageError(f"{'no' if not named else 'more than one'} state is called {wanted}", f"known: {known}")
        pair.append(named[0])
    return states.differences(pair[0], pair[1])


def rows(told: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """Return the cells of each state; the current one is marked."""
    for state in told["states"]:
        changes: list[str] = state["changes"]
        more = f" (+{len(changes) - 1})" if len(changes) > 1 else ""
        mark = "* " if state["current"] else "  "
        yield (
            mark + state["id"],
            state["at"],
            state["verdict"],
            ", ".join(state["models"]),
            "".join(changes[:1]) + more,
        )


def lines(told: Mapping[str, Any]) -> list[str]:
    """Return one line a state under a head; the differences alone when two states were compared."""
    if "differences" in told:
        return told["differences"] or ["no difference"]
    if not told["states"]:
        return [] if told["unseen"] else ["no state is recorded on these hosts"]
    table = [HEAD, *rows(told)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def table(told: Mapping[str, Any]) -> Table:
    """Return the table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEAD:
        found.add_column(name, overflow="fold")
    for row in rows(told):
        style = {"accepted": "green", "rejected": "red"}.get(row[2], "")
        found.add_row(*(Text(cell, style if column == 2 else "") for column, cell in enumerate(row)))
    return found
