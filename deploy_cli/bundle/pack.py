"""Pack a bundle: what is asked for is checked first, then written part after part.

A request: {output, force, site, inventory, work (folder that keeps downloads), gzip_level, pythons ([] = no wheels at
all, else those besides this one), images: [reference], models: [{name, store_name, folder}], packages: as
packages.pack takes them, notes: [text for whoever packs]}.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from deploy_cli import paths
from deploy_cli.bundle import archive, control, images, packages
from deploy_cli.bundle.manifest import FORMAT, MACHINES, RELEASES, human
from deploy_cli.bundle.writer import Writer
from deploy_cli.errors import DeployctlError, Problem

STORE_MANIFEST = ".deployctl.json"
SHRINKS_TO = 0.6  # a layer of an image, when it is compressed: an estimate, on the safe side for engines like vLLM
WHEELS_BYTES = 80_000_000  # what deployctl depends on, nearly all of it Ansible's collections


def refused(output: Path, *, force: bool, releases: list[str]) -> list[Problem]:
    """Say why this bundle could never be written, before anything is downloaded for it."""
    found = []
    if output.is_dir():
        found.append(Problem(str(output), "this is a folder", "name a file with -o"))
    elif output.exists() and not force:
        found.append(Problem(str(output), "the file is there already", "--force replaces it, or name another with -o"))
    elif why := paths.unwritable(output.parent):
        found.append(Problem(str(output.parent), f"nothing can be written there: {why}", "make it, or choose another"))
    for release in releases:
        if release not in RELEASES:
            hint = (
                f"`bundle_releases` takes {', '.join(RELEASES)}; on other systems install Docker and the driver from a "
                "mirror of yours: a host whose engine answers needs no packages of the bundle"
            )
            found.append(Problem("bundle_releases", f"packages of {release} cannot be packed", hint))
    return found


def expected(request: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Return what would be packed: (part, bytes), None where that is known only when it is there."""
    parts: list[tuple[str, int | None]] = []
    for image in request["images"]:
        try:
            size: int | None = int(images.inspect(image)["Size"] * (SHRINKS_TO if request["gzip_level"] else 1))
        except DeployctlError:
            size = None
        parts.append((f"image {image}", size))
    for model in request["models"]:
        folder = Path(model["folder"])
        there = (folder / STORE_MANIFEST).is_file()
        parts.append((f"model {model['name']}", sum(_size(file) for file in folder.rglob("*")) if there else None))
    for wanted in request["packages"]:
        parts.append((f"packages for {wanted['release']}: {', '.join(packages.asked(wanted))}", None))
    if request["pythons"]:
        parts.append(("wheels of deployctl", WHEELS_BYTES))
    return parts


def notes(request: dict[str, Any], packed: Mapping[str, Any]) -> list[str]:
    """Return what whoever packs should know: which kernels the driver can be built for, and what was left out."""
    told = list(request["notes"])
    for release, entry in packed.items():
        if entry["left_out"]:
            told.append(f"not in the archives of {release}, and so left out: {', '.join(entry['left_out'])}")
    return told


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def pack(request: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Write the bundle; return {file, id, size, parts: {part: bytes}, reused (bytes of a run that was stopped)}.

    DeployctlError, OSError; what is packed by then stays in FILE.part for the next run.
    """
    output, work = Path(request["output"]), Path(request["work"])
    work.mkdir(parents=True, exist_ok=True)
    earlier = None
    if output.is_file():
        try:
            earlier = archive.load(output)
        except archive.NotABundleError:
            earlier = None  # it is replaced, nothing can be taken over from it
    writer = Writer(output, _fingerprint(request), earlier)
    try:
        _check_room(request, writer)
        begun = time.time()
        manifest, parts = _write(request, writer, work, say)
        say("manifest")
        identity = writer.finish(manifest)
    finally:
        writer.close()
    return {
        "file": str(output),
        "id": identity,
        "size": output.stat().st_size,
        "parts": parts,
        "notes": notes(request, manifest["packages"]),
        "reused": writer.reused,
        "seconds": round(time.time() - begun, 1),
    }


def _write(
    request: dict[str, Any], writer: Writer, work: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, int]]:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "deployctl": metadata.version(control.NAME),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "site": request["site"],
        "inventory": request["inventory"],
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
        "python": [],
        "images": [],
        "models": [],
        "packages": {},
    }
    if request["pythons"]:
        # First in the file: who sets up a control node from it reads these and no more.
        manifest["python"] = sorted({control.python_version(), *request["pythons"]})
        control.pack(writer, work, request["pythons"], say)
    for wanted in request["packages"]:
        manifest["packages"][wanted["release"]] = packages.pack(writer, wanted, work, say)
    missing = packages.nowhere(request["packages"], manifest["packages"])
    if missing:
        what = f"no archive of {', '.join(manifest['packages'])} has {', '.join(missing)}"
        hint = (
            "`bundle_kernels` names what `uname -r` says on the hosts; kernels that came as a security update, or are "
            "older than the archive's, need another one in `bundle_apt_sources`"
        )
        raise DeployctlError(what, hint)
    for model in request["models"]:
        manifest["models"].append(_model(writer, model, say))
    for image in request["images"]:
        manifest["images"].append(images.pack(writer, image, int(request["gzip_level"]), say))
    parts: dict[str, int] = {}
    for name, stated in writer.files.items():
        top = name.split("/")[0] if "/" in name else "control node"
        top = {"wheels": "control node", "layers": "images"}.get(top, top)
        parts[top] = parts.get(top, 0) + int(stated["size"])
    return manifest, parts


def _model(writer: Writer, model: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Add a model's folder as the store keeps it; the checksums of its own manifest must hold."""
    folder, inside = Path(model["folder"]), f"models/{model['store_name']}"
    stated = json.loads((folder / STORE_MANIFEST).read_text(encoding="utf-8"))["files"]
    for number, (name, entry) in enumerate(sorted(stated.items()), start=1):
        say(f"model {model['name']}: {name} ({human(entry['size'])}), {number} of {len(stated)}")
        member, before = f"{inside}/{name}", writer.end
        had = member in writer.files
        writer.add_file(member, folder / name)
        if writer.files[member]["sha256"] != entry["sha256"]:
            if not had:
                writer.drop(member, before)
            raise DeployctlError(
                f"model {model['name']}: {name} does not have the checksum that the store's manifest states",
                f"delete {folder} and run again",
            )
    writer.add_file(f"{inside}/{STORE_MANIFEST}", folder / STORE_MANIFEST)
    return {"name": model["name"], "store_name": model["store_name"], "folder": inside}


def _check_room(request: dict[str, Any], writer: Writer) -> None:
    wanted = sum(size or 0 for _part, size in expected(request)) - writer.end
    free = shutil.disk_usage(writer.part.parent).free
    if wanted > free:
        what = f"the bundle needs about {human(wanted)} more in {writer.part.parent}, {human(free)} are free"
        raise DeployctlError(what, "make room, or name a file on another disk with -o")


def _fingerprint(request: dict[str, Any]) -> str:
    """Say what is packed, in one hash: a file that was begun for the same is gone on with."""
    facts: dict[str, Any] = {name: request[name] for name in ("site", "gzip_level", "pythons", "packages")}
    facts["images"] = [(image, images.inspect(image)["Id"]) for image in request["images"]]
    facts["models"] = [
        (model["store_name"], hashlib.sha256((Path(model["folder"]) / STORE_MANIFEST).read_bytes()).hexdigest())
        for model in request["models"]
    ]
    facts["wheels"] = control.fingerprint() if request["pythons"] else ""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
