"""One changing run per site at a time.

The lock is a flock(2) on a file in the runs folder, one file per inventory path. The kernel drops it when its holder
dies, so a file that was left behind is no obstacle. It covers runs that share a runs folder, and refuses before
anything starts; runs of other machines meet at the hosts, where each leaves a mark (`owner`, module site_lock).
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy_cli.errors import SiteLockedError

TAKEN = "taken"  # file in the folder of a run that has left its mark on hosts


@dataclass(frozen=True)
class Holder:
    """Who holds a site's lock: user@host, process id, command, inventory and the time it began (ISO 8601)."""

    who: str
    pid: int
    command: str
    inventory: str
    since: str

    def __str__(self) -> str:
        """Say it in one line, for the message of a refusal."""
        return f"{self.who} (pid {self.pid}) runs `deployctl {self.command} {self.inventory}` since {self.since}"


def lock_file(inventory: Path, runs: Path) -> Path:
    """Return the lock file of an inventory: its name for people, a checksum of its real path for uniqueness."""
    real = inventory.resolve()
    return runs / ".locks" / f"{real.stem}-{zlib.crc32(str(real).encode()):08x}.lock"


@contextmanager
def site_lock(inventory: Path, command: str, runs: Path) -> Iterator[None]:
    """Hold the site's lock inside the block. SiteLockedError at once when someone else holds it; it never waits."""
    file = lock_file(inventory, runs)
    file.parent.mkdir(parents=True, exist_ok=True)
    # The descriptor is not inherited by children (PEP 446): a worker that outlives us cannot hold the site.
    with file.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # The text is empty for the short moment before the holder has written who it is.
            raise SiteLockedError(
                f"another run works on this site: {_read(file) or 'it has just begun'}",
                "wait for it to end; Ctrl-C in its terminal stops it, and the next run finishes the work",
            ) from None
        _write(
            handle.fileno(), Holder(_me(), os.getpid(), command, str(inventory), time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        )
        try:
            yield
        finally:
            # Emptied, not removed: removing would let a third run lock a new file while a second waits on the old one.
            os.ftruncate(handle.fileno(), 0)


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _write(descriptor: int, holder: Holder) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(asdict(holder)).encode())


def _read(file: Path) -> Holder | None:
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def owner(run: str, command: str, pid: int) -> dict[str, object]:
    """Return what a run's mark on a host says of it; `pid` is the process that lives as long as the run."""
    return {
        "run": f"{_machine()}/{run}",
        "who": _me(),
        "command": command,
        "control": _machine(),
        "pid": pid,
        "born": _born(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def has_died(mark: Mapping[str, object]) -> bool:
    """Say whether the run of a mark was one of this machine and has ended; of other machines nothing is known."""
    if mark.get("control") != _machine() or not isinstance(mark.get("pid"), int):
        return False
    born = _born(int(str(mark["pid"])))
    return not born or (bool(mark.get("born")) and born != mark["born"])


def _machine() -> str:
    """A name of this machine that outlives a restart, and that a copy of it elsewhere does not have as well."""
    return f"{_line('/etc/machine-id')}@{socket.gethostname()}"


def _line(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process began, in its system's words; empty when it is not there."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return f"{_line('/proc/sys/kernel/random/boot_id')}/{ticks}"  # numbers and ticks begin anew with each start
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "unknown"
    return "unknown"
