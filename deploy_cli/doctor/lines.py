"""A line of the doctor's answer, and how the answer is shown: JSON, plain lines, a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from deploy_cli.errors import count

if TYPE_CHECKING:
    from rich.table import Table

State = Literal["ok", "problem", "hint", "skipped"]
STYLES = {"ok": "green", "problem": "bold red", "hint": "yellow", "skipped": "dim"}


@dataclass(frozen=True)
class Line:
    """What one check found. blocks: the site cannot work like this, or `up` would break what works now."""

    host: str
    check: str
    state: State
    what: str
    hint: str = ""
    blocks: bool = False


def document(site: str, lines: Sequence[Line]) -> dict[str, Any]:
    """Return the whole answer as JSON data; `ok` when no host has a problem (hints are none)."""
    hosts = {line.host: "ok" for line in lines} | {line.host: "problem" for line in lines if line.state == "problem"}
    return {
        "version": 1,
        "site": site,
        "ok": bool(lines) and "problem" not in hosts.values(),
        "hosts": hosts,
        "lines": [asdict(line) for line in lines],
    }


def blocking(lines: Iterable[Line]) -> list[Line]:
    """Return the lines because of which nothing should be changed on the hosts."""
    return [line for line in lines if line.blocks]


def refusal(lines: Sequence[Line]) -> str:
    """Return all that blocks as one readable text."""
    told = [f"{count(len(lines), 'problem')} on the hosts; nothing was touched:"]
    for line in lines:
        told += ["", f"{line.host}, {line.check}: {line.what}", *([f"  Hint: {line.hint}"] if line.hint else [])]
    return "\n".join(told)


def heading(host: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Say how a host is in one line: name, and how many problems and hints."""
    states = [line["state"] for line in lines]
    told = [count(states.count(state), state) for state in ("problem", "hint") if state in states]
    return f"{host}: {', '.join(told) or 'all is well'}"


def by_host(answer: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the lines of each host, in the order of the hosts."""
    return {host: [line for line in answer["lines"] if line["host"] == host] for host in answer["hosts"]}


def plain(answer: Mapping[str, Any]) -> list[str]:
    """Return the answer as text lines, for the log and for bare ansible-playbook."""
    found: list[str] = []
    for host, lines in by_host(answer).items():
        found += [*([""] if found else []), heading(host, lines)]
        width = max((len(line["check"]) for line in lines), default=0)
        for line in lines:
            found.append(f"  {line['state']:<8}{line['check']:<{width}}  {line['what']}")
            if line["hint"]:
                found.append(f"  {'':<8}{'':<{width}}  hint: {line['hint']}")
    return found


def table(host: str, lines: Sequence[Mapping[str, Any]]) -> Table:
    """Return one host's screen for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=heading(host, lines), title_justify="left")
    for name in ("CHECK", "STATE", "WHAT"):
        found.add_column(name, overflow="fold")
    for line in lines:
        what = Text(line["what"])
        if line["hint"]:
            what.append(f"\nhint: {line['hint']}", "cyan")
        found.add_row(Text(line["check"]), Text(line["state"], STYLES[line["state"]]), what)
    return found
