"""Where things lie: playbooks and roles, the runs folder, the folder and the files of one run.

Two places hold the Ansible content and no more: the copy inside the installed package, else the checkout this
package was imported from (an editable install has no copy).
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy_cli.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
RUN_NAME = re.compile(r"^\d{8}T\d{6}-[a-z][a-z0-9-]*$")


def content_dir() -> Path:
    """Return the folder that holds ansible.cfg, playbooks/, roles/ and templates/."""
    packaged = PACKAGE / "_content"
    return packaged if packaged.is_dir() else PACKAGE.parent


def playbook(command: str) -> Path:
    """Return the playbook of a command: every command has one of its own name."""
    return content_dir() / "playbooks" / f"{command}.yml"


def ansible_cfg() -> Path:
    """Return the ansible.cfg that goes with the content."""
    return content_dir() / "ansible.cfg"


def runs_dir() -> Path:
    """Return the folder that holds all runs: $DEPLOYCTL_RUNS_DIR, else runs/ in the checkout, else runs/ here.

    It is not made here: who only looks must leave nothing behind.
    """
    chosen = os.environ.get("DEPLOYCTL_RUNS_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    content = content_dir()
    return (Path.cwd() if content.name == "_content" else content) / "runs"


def unwritable(folder: Path, *, make: bool = False) -> str:
    """Say why nothing can be written there; only a file that is written tells it (root may all, and still cannot).

    make: the folder is made where it is not there.
    """
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def check_runs_dir() -> None:
    """Refuse a folder for runs in which nothing can be written; it is made where it is not there. UsageError."""
    runs = runs_dir()
    if why := unwritable(runs, make=True):
        raise UsageError(
            f"runs cannot be kept in {runs}: {why}",
            "DEPLOYCTL_RUNS_DIR names their folder: one that you may write, or that can be made",
        )


def new_run_dir(command: str, base: Path | None = None) -> Path:
    """Make the folder of a new run, mode 0700, named <YYYYmmddTHHMMSS>-<command> in UTC.

    UTC, so that sorting by name is sorting by time on the night the clocks change too. Two runs of one second
    get two folders: the later one is named -2, -3 and so on. OSError when the folder cannot be made.
    """
    base = base or runs_dir()
    base.mkdir(parents=True, exist_ok=True)
    stem = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{command}"
    number = 1
    while True:
        folder = base / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
            continue
        folder.chmod(0o700)  # mkdir's mode is cut by the umask
        return folder


def given_run_dir(command: str) -> Path:
    """Return the folder of this run, absolute: the one deployctl made, else a new one named after the command."""
    given = os.environ.get("DEPLOYCTL_RUN_DIR")
    if not given:
        return new_run_dir(command).absolute()
    folder = Path(given).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def run_dirs(base: Path | None = None) -> list[Path]:
    """Return the folders of all runs, the newest first."""
    base = base or runs_dir()
    if not base.is_dir():
        return []
    found = [entry for entry in base.iterdir() if RUN_NAME.match(entry.name) and entry.is_dir()]
    return sorted(found, key=_age, reverse=True)


def _age(folder: Path) -> tuple[str, int, str]:
    # "-10" comes after "-9": the number is compared as one.
    stamp, _, rest = folder.name.partition("-")
    _, _, last = rest.rpartition("-")
    return stamp, int(last) if last.isdigit() else 1, rest


def known_inventories() -> list[str]:
    """Return the inventory files of this checkout or folder, relative to the current one where they lie below it."""
    here = Path.cwd()
    found: dict[Path, str] = {}
    for folder in (here / "inventories", content_dir() / "inventories"):
        for file in sorted(folder.glob("*.y*ml")) if folder.is_dir() else []:
            shown = str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
            found.setdefault(file.resolve(), shown)
    return list(found.values())


def near_inventories(wanted: str) -> list[str]:
    """Return up to three inventories whose name is close to what was typed; all of them (at most 5) when none is."""
    known = known_inventories()
    stems = {name: Path(name).stem for name in known}
    close = difflib.get_close_matches(Path(wanted).stem, stems.values(), n=3, cutoff=0.5)
    return [name for name in known if stems[name] in close] or known[:5]


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a file, None when it is not there or not one."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
    part.replace(file)
