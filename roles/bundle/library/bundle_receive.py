#!/usr/bin/python
"""Take parts of a bundle into folders of this host: whole and with their checksums, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: bundle_receive
short_description: Files of a bundle on a host, complete and with verified checksums
description:
  - Files arrive piece by piece in C(<folder>.arriving), where a broken transfer goes on. A file is kept under its name
    when its checksum is right; the folder gets its own name when all files are there.
options:
  state:
    description: C(inspected) says what is there; C(written) adds pieces out of O(source).
    choices: [inspected, written]
    default: inspected
    type: str
  folders:
    description: The folders, each C(to) with its C(files) (C(name), C(size), C(sha256)).
    type: list
    elements: dict
    required: true
  source:
    description: File on the host that holds the pieces.
    type: path
  pieces:
    description: Each with C(to), C(name), C(offset) in the file, C(place) in the source, and C(length).
    type: list
    elements: dict
    default: []
author:
  - deployctl
"""

BLOCK = 1 << 22
READ_WHOLE = 1 << 20  # smaller files are compared by checksum; larger ones were when they came


class BrokenError(Exception):
    """A file does not have its checksum; it was deleted."""


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def arriving(folder: dict[str, Any]) -> Path:
    """Where files of a folder are until it is complete."""
    return Path(str(folder["to"]) + ".arriving")


def is_there(path: Path, stated: dict[str, Any]) -> bool:
    """Whether a file is what the bundle holds."""
    if not path.is_file() or path.stat().st_size != stated["size"]:
        return False
    return stated["size"] > READ_WHOLE or sha256(path) == stated["sha256"]


def inspect(folder: dict[str, Any]) -> dict[str, Any]:
    """Whether a folder is complete, else how many bytes of each of its files are there, and how many are free."""
    to, scratch = Path(folder["to"]), arriving(folder)
    if to.is_dir() and all(is_there(to / stated["name"], stated) for stated in folder["files"]):
        return {"placed": True, "have": {}, "free": 0}
    have = {}
    for stated in folder["files"]:
        name = stated["name"]
        part = scratch / (name + ".part")
        if (scratch / name).is_file():
            have[name] = stated["size"]
        elif part.is_file():
            have[name] = min(part.stat().st_size, stated["size"])
        else:
            have[name] = 0 if stated["size"] else -1
    above = next(path for path in (to, *to.parents) if path.is_dir())
    return {"placed": False, "have": have, "free": shutil.disk_usage(above).free}


def begin(folder: dict[str, Any]) -> None:
    """Make the folder that files arrive in, with what the present one holds already."""
    scratch = arriving(folder)
    if scratch.is_dir():
        return
    scratch.mkdir(parents=True)
    scratch.chmod(0o755)
    for stated in folder["files"]:
        old, new = Path(folder["to"]) / stated["name"], scratch / stated["name"]
        if old.is_file() and old.stat().st_size == stated["size"] and sha256(old) == stated["sha256"]:
            make_folder(new.parent, scratch)
            os.link(old, new)


def make_folder(path: Path, top: Path) -> None:
    """Make a folder below `top` that everybody may look into."""
    path.mkdir(parents=True, exist_ok=True)
    while path != top:
        path.chmod(0o755)
        path = path.parent


def write(folder: dict[str, Any], piece: dict[str, Any], source: Path) -> None:
    """Add one piece to its file; a file that is whole is checked and gets its name. Raises BrokenError."""
    stated = next(entry for entry in folder["files"] if entry["name"] == piece["name"])
    final = arriving(folder) / stated["name"]
    part = final.with_name(final.name + ".part")
    make_folder(final.parent, arriving(folder))
    with source.open("rb") as pieces, part.open("r+b" if part.exists() else "w+b") as file:
        pieces.seek(piece["place"])
        file.truncate(piece["offset"])
        file.seek(piece["offset"])
        left = piece["length"]
        while left:
            block = pieces.read(min(BLOCK, left))
            if not block:
                raise BrokenError(f"{stated['name']}: the piece that came is too short")
            file.write(block)
            left -= len(block)
    if part.stat().st_size < stated["size"]:
        return
    if sha256(part) != stated["sha256"]:
        part.unlink()
        raise BrokenError(f"{stated['name']} does not have the checksum that the bundle states; it was deleted")
    part.chmod(0o644)
    part.rename(final)


def place(folder: dict[str, Any]) -> None:
    """Give a folder its name when all its files have come; the one before it goes."""
    to, scratch = Path(folder["to"]), arriving(folder)
    if not scratch.is_dir() or not all((scratch / stated["name"]).is_file() for stated in folder["files"]):
        return
    old = Path(f"{to}.replaced-{os.getpid()}")
    if to.exists():
        to.rename(old)
    scratch.rename(to)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Inspect, or write and inspect."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["inspected", "written"], "default": "inspected"},
            "folders": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "path"},
            "pieces": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    folders = {folder["to"]: folder for folder in module.params["folders"]}
    written = module.params["state"] == "written" and not module.check_mode
    if written:
        try:
            for piece in module.params["pieces"]:
                begin(folders[piece["to"]])
                write(folders[piece["to"]], piece, Path(module.params["source"]))
            for folder in folders.values():
                place(folder)
        except (BrokenError, OSError) as error:
            module.fail_json(msg=f"{error}. Hint: run the same command again, it goes on where this one stopped")
    module.exit_json(changed=written, folders={to: inspect(folder) for to, folder in folders.items()})


if __name__ == "__main__":
    main()
