"""Read a bundle in place: where each member lies, whether each is what the manifest says, and ranges of them.

Members are found by walking the headers, so a file that was cut is told by the member it was cut in.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_cli import paths
from deploy_cli.bundle import manifest as contents
from deploy_cli.bundle.manifest import human
from deploy_cli.errors import Problem

BLOCK = 1 << 22
COPY_AGAIN = "copy the file again from where it was made"
LARGEST_MANIFEST = 1 << 28  # bytes; a real one has a few hundred kB


class NotABundleError(Exception):
    """The file is no bundle, or not a whole one; the problem says which."""

    def __init__(self, problem: Problem) -> None:
        """Keep the problem."""
        super().__init__(problem.what)
        self.problem = problem


@dataclass(frozen=True)
class Place:
    """Where a member's bytes begin in the file, and how many there are."""

    offset: int
    size: int


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its file, id, manifest and the places of the members."""

    file: Path
    id: str
    manifest: dict[str, Any]
    places: dict[str, Place]


def walk(file: Path) -> dict[str, Place]:
    """Return the place of every member. NotABundleError when it is no tar file, or ends inside a member."""
    places: dict[str, Place] = {}
    length = file.stat().st_size
    try:
        with tarfile.open(file, "r:") as tar:
            while (member := tar.next()) is not None:
                if not member.isreg() or member.name.startswith("/") or ".." in member.name.split("/"):
                    raise NotABundleError(Problem(member.name, "a bundle holds plain files below its own", COPY_AGAIN))
                places[member.name] = Place(member.offset_data, member.size)
                if member.offset_data + member.size > length:
                    there = length - member.offset_data
                    what = f"the file is cut here: {human(max(there, 0))} of {human(member.size)} are there"
                    raise NotABundleError(Problem(member.name, what, COPY_AGAIN))
    except tarfile.TarError as error:
        if places:
            raise _cut(file, list(places)[-1]) from error
        raise NotABundleError(
            Problem(str(file), f"this is no bundle: {error}", "`deployctl bundle` makes one")
        ) from error
    return places


def _cut(file: Path, last: str) -> NotABundleError:
    return NotABundleError(Problem(str(file), f"the file is cut after its member {last}", COPY_AGAIN))


def load(file: Path) -> Bundle:
    """Open a bundle without checking what is in it. NotABundleError; OSError when the file cannot be read."""
    places = walk(file)
    place = places.get(contents.NAME)
    if place is None:
        if not places:
            raise NotABundleError(Problem(str(file), "this is no bundle: it is empty", "`deployctl bundle` makes one"))
        raise _cut(file, list(places)[-1])
    if place.size > LARGEST_MANIFEST:
        raise NotABundleError(Problem(contents.NAME, "it is too large to be one", COPY_AGAIN))
    with file.open("rb") as handle:
        handle.seek(place.offset)
        text = handle.read(place.size)
    try:
        manifest = json.loads(text)
        contents.check_shape(manifest)
    except (ValueError, RecursionError) as error:
        raise NotABundleError(Problem(contents.NAME, f"it cannot be read: {error}", COPY_AGAIN)) from error
    return Bundle(file, hashlib.sha256(text).hexdigest(), manifest, places)


def chunks(file: Path, place: Place) -> Iterator[bytes]:
    """Yield the bytes of a member."""
    left = place.size
    with file.open("rb") as handle:
        handle.seek(place.offset)
        while left and (block := handle.read(min(BLOCK, left))):
            left -= len(block)
            yield block


def verify(bundle: Bundle, say: Callable[[str], None]) -> list[Problem]:
    """Hash every member; return all that is missing, changed, or not named by the manifest."""
    stated = bundle.manifest["files"]
    found = [
        Problem(name, "the manifest names it, and the bundle does not hold it", COPY_AGAIN)
        for name in sorted(set(stated) - set(bundle.places))
    ]
    found += [
        Problem(name, "the manifest does not name it: it was put in later", COPY_AGAIN)
        for name in sorted(set(bundle.places) - set(stated) - {contents.NAME})
    ]
    total, seen = sum(place.size for place in bundle.places.values()), 0
    for name, place in bundle.places.items():
        digest = hashlib.sha256()
        for block in chunks(bundle.file, place):
            digest.update(block)
            seen += len(block)
            say(f"checksums: {human(seen)} of {human(total)}")
        if name in stated and (digest.hexdigest(), place.size) != (stated[name]["sha256"], stated[name]["size"]):
            found.append(Problem(name, "it does not have the checksum that the manifest states", COPY_AGAIN))
    return found


def open_checked(
    file: Path, site: str, say: Callable[[str], None], memory: Path | None = None
) -> tuple[Bundle | None, list[Problem]]:
    """Open a bundle and check everything in it for a site; one that was good and is unchanged is not read again.

    memory: file that remembers which bundle was good. The hosts check what reaches them once more in any case.
    """
    try:
        bundle = load(file)
    except NotABundleError as error:
        return None, [error.problem]
    except OSError as error:
        return None, [Problem(str(file), f"the bundle cannot be read: {error.strerror}", "is this the right path?")]
    problems = contents.of_another_kind(bundle.manifest, site)
    state = file.stat()
    good = {
        "path": str(file),
        "size": state.st_size,
        "mtime": state.st_mtime_ns,
        "inode": state.st_ino,
        "id": bundle.id,
    }
    if memory is None or paths.read_json(memory) != good:
        damaged = verify(bundle, say)
        problems += damaged
        if memory is not None and not damaged:
            _remember(memory, good)
    return (None if problems else bundle), problems


def _remember(memory: Path, good: dict[str, Any]) -> None:
    try:
        memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.write_private(memory, json.dumps(good) + "\n")
    except OSError:
        return  # then the next run reads it all again


def memory_of(file: Path) -> Path:
    """Return where it is remembered that a bundle was found good."""
    return Path.home() / ".cache/deployctl/bundles" / f"{hashlib.sha256(bytes(file)).hexdigest()[:16]}.json"


def ranges(bundle: Bundle, wanted: Iterable[tuple[str, int]], limit: int) -> list[dict[str, Any]]:
    """Return the next pieces to send, at most `limit` bytes: [{name, offset (in the member), place, length}].

    wanted: members with the bytes of each that are there already.
    """
    found: list[dict[str, Any]] = []
    for name, have in wanted:
        size = bundle.places[name].size
        length = min(size - have, limit)
        if length <= 0 and (limit <= 0 or size > have):
            break
        found.append({"name": name, "offset": have, "place": bundle.places[name].offset + have, "length": length})
        limit -= length
    return found
