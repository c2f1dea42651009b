#!/usr/bin/env python3
"""What came of each fault, one line each: kept in runs/faults.json, printed when run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from load import Load

KEPT = Path(__file__).resolve().parents[2] / "runs/faults.json"


@dataclass
class Row:
    """One line of the table; times in seconds. `cut_aloud` streams ended early and said so."""

    fault: str
    sent: int
    failed: int
    cut_aloud: int
    slowest: float
    recovered: float | None

    @classmethod
    def of(cls, fault: str, load: Load, recovered: float | None) -> Row:
        """What the load has seen of a fault."""
        seen = (load.chats, load.streams)
        return cls(
            fault,
            sum(s.sent for s in seen),
            sum(len(s.failed) for s in seen),
            load.streams.cut_aloud,
            round(max(s.slowest for s in seen), 1),
            None if recovered is None else round(recovered, 1),
        )


def kept() -> list[Row]:
    """The rows of the last `make faults`, as far as it has come."""
    return [Row(**row) for row in json.loads(KEPT.read_text())] if KEPT.exists() else []


def keep(rows: list[Row]) -> None:
    """Keep these for whoever adds to them or prints the whole."""
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def lines(rows: list[Row]) -> Iterator[str]:
    """The table, its head first."""
    yield f"{'fault':<66}{'sent':>6}{'failed':>8}{'cut aloud':>11}{'slowest s':>11}{'recovered s':>13}"
    for row in rows:
        back = "-" if row.recovered is None else f"{row.recovered:.1f}"
        yield f"{row.fault:<66}{row.sent:>6}{row.failed:>8}{row.cut_aloud:>11}{row.slowest:>11.1f}{back:>13}"


if __name__ == "__main__":
    print("\n".join(lines(kept())))
