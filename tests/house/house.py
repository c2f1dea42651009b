"""What the tests of the house look at: the repository's own files, roles and imports."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(folder.name for folder in (ROOT / "roles").iterdir() if (folder / "tasks").is_dir())
PLAYBOOKS = sorted(file.stem for file in (ROOT / "playbooks").glob("*.yml"))


@lru_cache
def files() -> tuple[Path, ...]:
    """Every file that is or would be committed, relative to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(Path(name) for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file())


def below(*folders: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these suffixes in these top folders."""
    return [file for file in files() if file.parts[0] in folders and file.suffix in suffixes]


def text(file: Path | str) -> str:
    """Content of a file of the repository; a picture reads as no text."""
    return (ROOT / file).read_text(encoding="utf-8", errors="replace")


def read_yaml(file: Path | str) -> Any:
    """First document of a YAML file; None when the file is empty."""
    return yaml.safe_load(text(file))


def options(role: str, entry_point: str = "main") -> dict[str, dict[str, Any]]:
    """Options of a role's entry point, as its argument_specs name them."""
    spec = read_yaml(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    found: dict[str, dict[str, Any]] = spec[entry_point].get("options") or {}
    return found


def all_options(found: dict[str, dict[str, Any]], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Options and those nested in them, as (`name` or `outer.inner`, option)."""
    for name, option in found.items():
        yield above + name, option
        yield from all_options(option.get("options") or {}, f"{above}{name}.")


@lru_cache
def imports(file: Path) -> frozenset[str]:
    """Dotted names that a Python file imports, wherever in the file; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(text(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def importers(module: str) -> list[str]:
    """Files that import a top-level module."""
    python = [file for file in files() if file.suffix == ".py"]
    return [str(file) for file in python if any(name.split(".")[0] == module for name in imports(file))]


def lines_with(pattern: str, where: list[Path]) -> list[str]:
    """`file:line: text` of every line that the pattern is found in."""
    search = re.compile(pattern).search
    return [
        f"{file}:{number}: {line.strip()}"
        for file in where
        for number, line in enumerate(text(file).splitlines(), start=1)
        if search(line)
    ]
