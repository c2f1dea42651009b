"""What of a site is not as its inventory says, read from the tasks that a dry run would have changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("HOST", "ROLE", "NOT AS THE INVENTORY SAYS")
SPARE = re.compile(r"All items completed|OK \(.*\)|")  # messages of Ansible that say nothing of their own


@dataclass(frozen=True)
class Change:
    """A task that changed something on a host, or in a dry run would.

    role: empty for a task of a playbook. task: its name, empty where `what` says it all. what: one text for each thing
    that is not so (an item of a loop, a file, the differing keys of a container). diff: how files differ, with --diff.
    """

    host: str
    role: str
    task: str
    what: tuple[str, ...] = ()
    diff: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        return ": ".join(text for text in (self.task, ", ".join(self.what)) if text)


def to_change(data: Mapping[str, Any], diff: str = "") -> Change:
    """Make a Change of the event of a changed task."""
    result: Mapping[str, Any] = data.get("res") or {}
    role = str(data.get("role") or "")
    task = str(data.get("task") or data.get("name") or "").removeprefix(f"{role} : ")
    if str(data.get("task_action")).endswith("debug"):  # an announcement: its message says all
        return Change(str(data.get("host")), role, "", (str(result.get("msg") or task),), diff)
    items = [item for item in result.get("results") or [] if isinstance(item, Mapping) and item.get("changed")]
    told = [text for text in map(_item, items) if text] if items else [text for text in [_details(result)] if text]
    return Change(str(data.get("host")), role, task, tuple(told), diff)


def _item(item: Mapping[str, Any]) -> str:
    shown = item.get("_ansible_item_label", item.get("item"))
    if isinstance(shown, Mapping):
        shown = shown.get("name", "")
    detail = _details(item)
    label = str(shown or "")
    return detail if not label or label in detail else f"{label} ({detail})" if detail else label


def _details(result: Mapping[str, Any]) -> str:
    """Return what a module says of the difference: its message, the file, the keys whose values differ."""
    keys = differing(result.get("diff"))
    place = str(result.get("dest") or result.get("path") or _file(result.get("diff")))
    message = str(result.get("msg") or "").strip()
    if not place and not SPARE.fullmatch(message):
        return message
    return f"{place} ({', '.join(keys)})" if place and keys else place or ", ".join(keys)


def _file(diff: Any) -> str:
    """Return the file whose texts a diff holds; its head may say more than the name."""
    for part in diff if isinstance(diff, list) else [diff]:
        head = str(part.get("before_header") or "") if isinstance(part, Mapping) else ""
        if head.startswith("/"):
            return head.split(" ", 1)[0]
    return ""


def differing(diff: Any) -> list[str]:
    """Return the keys in which `before` and `after` of a module's diff differ; none where they are texts of files."""
    parts = diff if isinstance(diff, list) else [diff]
    found: dict[str, None] = {}
    for part in parts:
        before, after = (part.get("before"), part.get("after")) if isinstance(part, Mapping) else (None, None)
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            continue
        for key in [*after, *(key for key in before if key not in after)]:
            if before.get(key) != after.get(key) and key not in ("path", "id"):
                found[_words(key, before.get(key), after.get(key))] = None
    return list(found)


def _words(key: str, before: Any, after: Any) -> str:
    """Say a difference shortly: `not running` and `absent` for states, else the key alone (values may be secrets)."""
    if key in ("running", "exists") and isinstance(after, bool):
        wrong = {"running": ("not running", "running"), "exists": ("absent", "there, and not planned")}[key]
        return wrong[0] if after else wrong[1]
    if key in ("state", "mode", "owner", "group"):
        return f"{key} {before}, not {after}"
    return str(key)


def document(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return the changes as JSON data."""
    return [asdict(change) | {"what": list(change.what)} for change in changes]


def lines(changes: Iterable[Change], *, files: bool = False) -> list[str]:
    """Return one line a change, under a head; with files=True, how files differ stands below its line."""
    listed = list(changes)
    rows = [HEAD, *((change.host, change.role or "-", str(change)) for change in listed)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    found = []
    for row, change in zip(rows, [None, *listed], strict=True):
        found.append("  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2]]))
        if files and change is not None and change.diff:
            found += [f"    {line}" for line in change.diff.splitlines()]
    return found


def table(changes: Iterable[Change]) -> Table:
    """Return the table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEAD:
        found.add_column(name, overflow="fold")
    for change in changes:
        found.add_row(Text(change.host), Text(change.role or "-"), Text(str(change), "yellow"))
    return found
