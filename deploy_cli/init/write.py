"""Put the files where they belong: never over others unasked, and say what that would change."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from deploy_cli import paths
from deploy_cli.errors import UsageError


def check(inventory: Path, *, dry: bool) -> None:
    """Refuse a place where the files of a site cannot lie, before any host is looked at. UsageError.

    dry: they are not to be written either.
    """
    own = inventory.parent / "group_vars" / inventory.stem.replace("-", "_")
    hint = "name another folder with --inventories"
    for file in (inventory, own / "main.yml", own / "models.yml"):
        if file.is_dir():
            raise UsageError(f"{file} is a folder, and a file is to be written there", f"move it away, or {hint}")
        there = next(folder for folder in file.parents if folder.exists() or folder.is_symlink())
        if not there.is_dir():
            raise UsageError(f"{there} is no folder, and {file} is to lie below it", hint)
        if not dry and (why := paths.unwritable(there)):
            raise UsageError(f"{there} cannot be written: {why}", hint)


def compare(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Return {file: new, same or differs} for each text."""
    found = {}
    for name, text in texts.items():
        old = _read(folder / name)
        found[name] = "new" if old is None else "same" if old == text else "differs"
    return found


def changes(folder: Path, texts: Mapping[str, str]) -> str:
    """Return how the files that are there would change, as a unified diff; empty when none would."""
    told: list[str] = []
    for name, text in texts.items():
        old = _read(folder / name)
        if old is not None:
            lines = (old.splitlines(keepends=True), text.splitlines(keepends=True))
            told += difflib.unified_diff(lines[0], lines[1], str(folder / name), "init would write")
    return "".join(line if line.endswith("\n") else line + "\n" for line in told)


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write every file, each whole or not at all. OSError where the folder cannot be written."""
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as handle:
            handle.write(text)
        part.replace(file)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
