"""What can go wrong, how it is told, and the exit code each kind ends with.

DeployctlError                1  our own fault, or anything nobody foresaw
├── UsageError                2  a command line that cannot be followed; nothing was touched
│   ├── PlanRefusedError      2  an inventory that cannot be planned; holds every Problem found
│   └── SiteLockedError       2  another run works on this site
├── HostFailedError           3  a task failed on a host, or a host could not be reached
│   └── RunCancelledError     3  somebody stopped the run
├── NotAcceptedError          4  deployed, and the acceptance said no
└── DriftedError              5  what runs is no longer what was accepted
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Literal


class ExitCode(IntEnum):
    """Exit codes of `deployctl`; scripts may rely on them."""

    ACCEPTED = 0
    OWN_FAULT = 1
    REFUSED = 2
    HOST_FAILED = 3
    NOT_ACCEPTED = 4
    DRIFTED = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (`file:line` when known, else host/key path), what, and how to put it right."""

    where: str
    what: str
    hint: str
    severity: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, str]:
        """The problem as JSON data."""
        return asdict(self)


class DeployctlError(Exception):
    """Root of the tree; `exit_code` is what the program ends with, `hint` what to do about it."""

    exit_code = ExitCode.OWN_FAULT

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the hint beside the message."""
        super().__init__(message)
        self.hint = hint


class UsageError(DeployctlError):
    """The command line asks for something that cannot be done."""

    exit_code = ExitCode.REFUSED


class PlanRefusedError(UsageError):
    """The inventory cannot be planned."""

    def __init__(self, problems: Iterable[Problem], inventory: str = "") -> None:
        """Keep the problems; the message is all of them as text."""
        self.problems = list(problems)
        super().__init__(render_problems(self.problems, inventory))


class SiteLockedError(UsageError):
    """Another run works on the same site."""


class HostFailedError(DeployctlError):
    """A task failed on a host, or a host did not answer."""

    exit_code = ExitCode.HOST_FAILED


class RunCancelledError(HostFailedError):
    """The run was stopped before it was through."""


class NotAcceptedError(DeployctlError):
    """Everything runs, and the acceptance rejected it."""

    exit_code = ExitCode.NOT_ACCEPTED


class DriftedError(DeployctlError):
    """What runs differs from what was accepted."""

    exit_code = ExitCode.DRIFTED


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 problem`, `3 problems`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def render_problems(problems: Iterable[Problem], inventory: str = "") -> str:
    """All problems as one readable text: errors first, each with where, what and hint."""
    found = sorted(problems, key=lambda p: p.severity)
    errors = sum(p.severity == "error" for p in found)
    parts = [count(errors, "problem")] if errors else []
    if errors < len(found):
        parts.append(count(len(found) - errors, "warning"))
    head = " and ".join(parts) or "No problem"
    head += f" in {inventory}" if inventory else ""
    lines = [head + ("; nothing was touched:" if errors else ":" if found else "")]
    for problem in found:
        label = "Warning" if problem.severity == "warning" else "Error"
        lines += ["", f"{label}: {problem.where}", f"  {problem.what}"]
        if problem.hint:
            lines.append(f"  Hint: {problem.hint}")
    return "\n".join(lines)
