"""Pack images by their layers: each layer once, whatever images share it, so that a host gets what it lacks only.

What `docker save` writes is read as a stream. Two forms exist: one folder a layer (up to Docker 24), and blobs named by
their hash (from 25 on). In both, manifest.json comes last and says which file is which layer.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from deploy_cli.bundle.manifest import human
from deploy_cli.bundle.writer import Writer, compressed
from deploy_cli.errors import DeployctlError

BLOCK = 1 << 20
LARGEST_TEXT = 1 << 24  # bytes of a JSON file of an image; its configuration has a few kB
GZIP_MAGIC = b"\x1f\x8b"
ROOM = "is there room in Docker's own folder? It writes the image there once more"
INPUTS = "deployctl.inputs"  # the label of an image that was built here, see roles/images


def inspect(reference: str) -> dict[str, Any]:
    """Return the engine's record of an image. DeployctlError when it is not there."""
    done = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeployctlError(f"image {reference} is not on this machine: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def layer_name(layer_id: str) -> str:
    """Return the member of a layer."""
    return f"layers/{layer_id.removeprefix('sha256:')}.tar"


@dataclass
class _Saved:
    """What a `docker save` stream held: small JSON files, layers by path, links by path."""

    texts: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def layer(self, path: str) -> str:
        """The layer id of a path of manifest.json, links followed."""
        while path in self.links:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), self.links[path]))
        return self.layers[path]


def pack(writer: Writer, reference: str, level: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Bring an image's layers and configuration into the bundle; return its entry in the manifest. DeployctlError."""
    known = inspect(reference)
    layer_ids: list[str] = known["RootFS"]["Layers"]
    missing = [layer for layer in dict.fromkeys(layer_ids) if layer not in writer.keys and not _taken(writer, layer)]
    config = writer.keys.get(known["Id"]) or _taken_config(writer, known["Id"])
    if missing or config is None:
        config = _save(writer, reference, known, level, say)
    labels = (known.get("Config") or {}).get("Labels") or {}
    digests = [digest.split("@", 1)[1] for digest in known.get("RepoDigests") or [] if "@" in digest]
    return {
        "reference": reference,
        "id": known["Id"],
        "created": known["Created"],
        "size": known["Size"],
        "digests": digests,
        "inputs": labels.get(INPUTS, ""),
        "config": config,
        "layers": [writer.keys[layer] for layer in layer_ids],
        "layer_ids": layer_ids,
    }


def _taken(writer: Writer, layer_id: str) -> bool:
    return writer.take(layer_name(layer_id), layer_id)


def _taken_config(writer: Writer, image_id: str) -> str | None:
    held = writer.earlier.manifest["images"] if writer.earlier else []
    name = next((str(image["config"]) for image in held if image["id"] == image_id), None)
    return name if name and writer.take(name, image_id) else None


def _save(writer: Writer, reference: str, known: dict[str, Any], level: int, say: Callable[[str], None]) -> str:
    """Read `docker save` once, keep every layer that is not in yet; return the member of the configuration."""
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(["docker", "save", reference], stdout=subprocess.PIPE, stderr=told) as process,
    ):
        try:
            say(f"{reference}: the engine writes it out ({human(known['Size'])})")
            total = human(known["Size"])
            seen = read_saved(process.stdout, writer, level, lambda done: say(f"{reference}: {human(done)} of {total}"))
        except tarfile.TarError as error:
            process.kill()
            raise DeployctlError(f"docker save {reference} ended early: {_text(told) or error}", ROOM) from error
        except BaseException:
            process.kill()
            raise
        if process.wait():
            raise DeployctlError(f"docker save {reference} failed: {_text(told)}", ROOM)
    return _finish(writer, reference, known, seen)


def read_saved(stream: IO[bytes] | None, writer: Writer, level: int, tell: Callable[[int], None]) -> _Saved:
    """Take in what `docker save` writes; layers go into the bundle as they come. tarfile.TarError."""
    seen, done = _Saved(), 0
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as tar:
        for member in tar:
            if member.issym() or member.islnk():
                seen.links[member.name] = member.linkname
            elif handle := tar.extractfile(member):
                _keep(writer, seen, member, handle, level, lambda more, base=done: tell(base + more))  # type: ignore[misc]
                done += member.size
    while stream and stream.read(BLOCK):
        pass  # what follows the end of a tar file is padding, and the engine wants to be rid of it
    return seen


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _is_text(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return len(data) < tarfile.BLOCKSIZE  # no tar file is as small
    return True


def _keep(
    writer: Writer, seen: _Saved, member: tarfile.TarInfo, handle: IO[bytes], level: int, tell: Callable[[int], None]
) -> None:
    """Sort one file of the stream: text is remembered, a layer goes into the bundle unless it is there."""
    first = handle.read(LARGEST_TEXT if member.size <= LARGEST_TEXT else BLOCK)
    if len(first) == member.size and _is_text(first):
        seen.texts[member.name] = first
        return
    packed = first.startswith(GZIP_MAGIC)
    plain, unpack = hashlib.sha256(), zlib.decompressobj(16 + zlib.MAX_WBITS)

    def blocks() -> Iterator[bytes]:
        block, done = first, 0
        while block:
            plain.update(unpack.decompress(block) if packed else block)
            done += len(block)
            tell(done)
            yield block
            block = handle.read(BLOCK)

    before, scratch = writer.end, "layers/" + "0" * 64 + ".tar"  # as long as the name it gets: its header fits
    writer.add(scratch, blocks() if packed or not level else compressed(blocks(), level), lasting=False)
    layer_id = "sha256:" + plain.hexdigest()
    seen.layers[member.name] = layer_id
    if layer_id in writer.keys:
        writer.drop(scratch, before)
    else:
        writer.rename(scratch, layer_name(layer_id), before, layer_id)


def _finish(writer: Writer, reference: str, known: dict[str, Any], seen: _Saved) -> str:
    try:
        entry = json.loads(seen.texts["manifest.json"])[0]
        config = seen.texts[entry["Config"]]
        layer_ids = [seen.layer(path) for path in entry["Layers"]]
    except (KeyError, ValueError, IndexError) as error:
        raise DeployctlError(f"docker save {reference}: its manifest.json is not understood: {error!r}") from error
    if layer_ids != known["RootFS"]["Layers"] or layer_ids != json.loads(config)["rootfs"]["diff_ids"]:
        raise DeployctlError(f"docker save {reference}: its layers are not those of the image", "run it again")
    name = f"images/{hashlib.sha256(config).hexdigest()}.json"
    writer.add(name, [config], known["Id"])
    return name
