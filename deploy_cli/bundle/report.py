"""What stands on the terminal when a bundle was written, or would be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_cli.bundle.manifest import human


def lines(packed: Mapping[str, Any], inventory: Path) -> list[str]:
    """Say what is in the bundle, part by part, and what to do with it."""
    if "expected" in packed:
        known = [size for _part, size in packed["expected"] if size is not None]
        told = [f"{'?' if size is None else human(size):>10}  {part}" for part, size in packed["expected"]]
        rest = ", and what is not known before it is fetched (?)" if len(known) < len(told) else ""
        noted = [f"note: {note}" for note in packed["notes"]]
        return [f"would write {packed['file']}:", *told, f"about {human(sum(known))}{rest}", *noted]
    file = Path(packed["file"])
    told = [f"{human(size):>10}  {part}" for part, size in packed["parts"].items()]
    went_on = [f"went on behind {human(packed['reused'])} of a run that was stopped"] if packed["reused"] else []
    return [
        f"{file}  {human(packed['size'])}",
        *told,
        *went_on,
        *(f"note: {note}" for note in packed["notes"]),
        f"id {packed['id']}",
        "The id proves all of it: compare it where the file arrives. There (README in the file says how to begin):",
        f"  deployctl up {inventory} --bundle {file.name}",
    ]
