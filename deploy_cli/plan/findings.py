"""Collects problems while the planner goes on, so that all are told at once."""

import re
from collections.abc import Iterable
from typing import Literal

from deploy_cli.errors import Problem
from deploy_cli.plan.shapes import KeyPath, SiteInput

_LONG_WORD = re.compile(r"\S{160,}")


class Findings:
    """Problems found so far. The same one seen from several hosts counts once."""

    def __init__(self, site: SiteInput) -> None:
        """Begin with what was found while the files were read."""
        self.site = site
        self.found: list[Problem] = list(dict.fromkeys(site.problems))
        self.bad: set[tuple[str, KeyPath]] = set()

    def add(
        self, host: str, path: KeyPath, what: str, hint: str, severity: Literal["error", "warning"] = "error"
    ) -> None:
        """Note a problem at a host's value."""
        if severity == "error":
            self.bad.add((host, path))
        self._note(Problem(self.site.where(host, *path), _short(what), _short(hint), severity))

    def add_all(self, host: str, findings: Iterable[tuple[KeyPath, str, str]]) -> None:
        """Note several (path, what, hint) of one host."""
        for path, what, hint in findings:
            self.add(host, path, what, hint)

    def add_site(self, what: str, hint: str) -> None:
        """Note a problem of the inventory as a whole."""
        self._note(Problem(self.site.inventory, what, hint))

    def is_bad(self, host: str, *path: str | int) -> bool:
        """Whether the value, something in it, or something around it was refused."""
        return any(h == host and (p[: len(path)] == path or path[: len(p)] == p) for h, p in self.bad)

    def in_order(self) -> list[Problem]:
        """All problems as a reader goes through them: errors first, then by file and line."""
        return sorted(self.found, key=_reading_order)

    @property
    def refused(self) -> bool:
        """Whether anything found forbids the plan."""
        return any(p.severity == "error" for p in self.found)

    def _note(self, problem: Problem) -> None:
        if problem not in self.found:
            self.found.append(problem)


def _short(text: str) -> str:
    """A text in which no word is longer than a line: names and values are the user's, and may be anything."""
    return _LONG_WORD.sub(lambda found: found[0][:60] + "...", text)


def _reading_order(problem: Problem) -> tuple[str, str, int]:
    name, _, line = problem.where.rpartition(":")
    return (problem.severity, name, int(line)) if line.isdigit() else (problem.severity, problem.where, 0)
