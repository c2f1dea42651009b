"""Write a bundle: members one after another into FILE.part, which becomes FILE when the manifest is in.

FILE.part.json keeps which members are whole. A run that was stopped goes on behind the last one, as long as it packs
the same; nothing is staged beside the file, so packing takes the room of the bundle once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deploy_cli import paths
from deploy_cli.bundle import manifest as contents
from deploy_cli.bundle.archive import Bundle, chunks
from deploy_cli.errors import DeployctlError

GZIP = 16 + zlib.MAX_WBITS  # what tells zlib to write gzip's frame; it holds no time, so equal input is equal output


class BusyError(DeployctlError):
    """Another run writes this bundle."""


def compressed(blocks: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Yield the gzip form of what comes."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, GZIP)
    for block in blocks:
        yield squeeze.compress(block)
    yield squeeze.flush()


class Writer:
    """Appends members; `files` is {member: {size, sha256}} of what is whole, `keys` {key: member} to find it by."""

    def __init__(self, target: Path, fingerprint: str, earlier: Bundle | None = None) -> None:
        """Open FILE.part, and keep what it holds of the same request. BusyError, OSError.

        earlier: an older bundle, whose members can be taken over with `take`.
        """
        self.target, self.earlier = target, earlier
        self.part = target.with_name(target.name + ".part")
        self.journal = target.with_name(target.name + ".part.json")
        self.files: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self._handle = os.fdopen(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._handle.close()
            raise BusyError(f"another run writes {self.part}", "wait for it, or choose another file with -o") from error
        self._fingerprint = fingerprint
        self._end = self._resume()
        self.reused = self._end

    def _resume(self) -> int:
        kept = paths.read_json(self.journal) or {}
        length = os.fstat(self._handle.fileno()).st_size
        if kept.get("fingerprint") != self._fingerprint or kept.get("end", 0) > length:
            kept = {"end": 0, "files": {}, "keys": {}}
        self.files, self.keys = kept["files"], kept["keys"]
        self._handle.truncate(kept["end"])
        return int(kept["end"])

    def _note(self) -> None:
        self._handle.flush()
        state = {"fingerprint": self._fingerprint, "end": self._end, "files": self.files, "keys": self.keys}
        paths.write_private(self.journal, json.dumps(state))

    def add(self, name: str, blocks: Iterable[bytes], key: str = "", *, lasting: bool = True) -> None:
        """Append a member whose size is known when it ends: its header is written last.

        lasting=False: a run that is stopped now forgets it.
        """
        start = self._end
        self._handle.seek(start)
        header = len(self._header(name, 0))
        self._handle.write(bytes(header))
        digest, size = hashlib.sha256(), 0
        for block in blocks:
            self._handle.write(block)
            digest.update(block)
            size += len(block)
        self._handle.write(bytes(-size % tarfile.BLOCKSIZE))
        self._end = self._handle.tell()
        self._handle.seek(start)
        self._handle.write(self._header(name, size))
        self.files[name] = {"size": size, "sha256": digest.hexdigest()}
        if key:
            self.keys[key] = name
        if lasting:
            self._note()

    @staticmethod
    def _header(name: str, size: int) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = size, int(time.time())
        member.mode = 0o755 if name.endswith(".sh") else 0o644
        return member.tobuf(tarfile.GNU_FORMAT)

    def drop(self, name: str, length: int) -> None:
        """Take back the member that was added last; length: `end` before it."""
        self._end = length
        del self.files[name]
        self.keys = {key: member for key, member in self.keys.items() if member != name}
        self._handle.truncate(length)
        self._note()

    def rename(self, old: str, new: str, length: int, key: str) -> None:
        """Give the member that was added last the name that its content has told; length: `end` before it."""
        size = self.files[old]["size"]
        self._handle.seek(length)
        self._handle.write(self._header(new, size))
        self.files[new] = self.files.pop(old)
        self.keys[key] = new
        self._note()

    @property
    def end(self) -> int:
        """Bytes written so far."""
        return self._end

    def add_file(self, name: str, file: Path) -> None:
        """Append a file; nothing to do when it is in already."""
        if name not in self.files:
            self.add(name, _blocks(file))

    def take(self, name: str, key: str) -> bool:
        """Copy a member of the earlier bundle, checked on the way; False when it is not there or not whole."""
        if self.earlier is None or name not in self.earlier.places or name not in self.earlier.manifest["files"]:
            return False
        before = self._end
        self.add(name, chunks(self.earlier.file, self.earlier.places[name]), key)
        if self.files[name] != self.earlier.manifest["files"][name]:
            self.drop(name, before)
            return False
        return True

    def finish(self, manifest: dict[str, Any]) -> str:
        """Write the manifest and the tar's end, rename to FILE; return the bundle's id."""
        text = json.dumps({**manifest, "files": self.files}, indent=1, sort_keys=True).encode() + b"\n"
        self.add(contents.NAME, [text], lasting=False)
        self._handle.seek(self._end)
        self._handle.write(bytes(2 * tarfile.BLOCKSIZE))
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.part.replace(self.target)
        self.journal.unlink(missing_ok=True)
        self._handle.close()
        return hashlib.sha256(text).hexdigest()

    def close(self) -> None:
        """Let go of the file; what is in it stays for the next run."""
        self._handle.close()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as handle:
        while block := handle.read(1 << 22):
            yield block
