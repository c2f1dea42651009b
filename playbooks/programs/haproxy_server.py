"""Take servers out of HAProxy's rotation and put them back, through its admin socket.

Sent to the host as it is, see action_plugins/haproxy_server.py, which also says what the arguments are.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any


def ask(path: str, command: str) -> str:
    """Send one command to the admin socket and return the answer. OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(10)
        link.connect(path)
        link.sendall(command.encode() + b"\n")
        parts = []
        while part := link.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


# Seconds between two looks; clients have an instance less meanwhile.
PAUSE = 0.05

# Bits of a server's administrative state: maintenance and drain, as somebody asked for them.
FORCED_MAINTENANCE, FORCED_DRAIN = 0x01, 0x08


def statistics(path: str) -> list[dict[str, str]]:
    """Return HAProxy's lines about all servers, one for each backend that holds one."""
    return list(csv.DictReader(io.StringIO(ask(path, "show stat -1 4 -1").lstrip("# "))))


def rows(path: str, servers: list[str]) -> list[dict[str, str]]:
    """Return those about these servers."""
    return [row for row in statistics(path) if row["svname"] in servers]


def kept_out(path: str) -> set[tuple[str, str]]:
    """Return (backend, server) of all that somebody took out. The statistics tell that only of servers that are up."""
    # After the format's version and a mark, a table as that of the statistics, with spaces.
    text = ask(path, "show servers state").partition("# ")[2]
    return {
        (row["be_name"], row["srv_name"])
        for row in csv.DictReader(io.StringIO(text), delimiter=" ")
        if int(row["srv_admin_state"]) & (FORCED_MAINTENANCE | FORCED_DRAIN)
    }


def busy(found: list[dict[str, str]]) -> int:
    """Count the requests that run on the servers or wait for them."""
    return sum(int(row["scur"] or 0) + int(row["qcur"] or 0) for row in found)


def left_alone(path: str, servers: list[str]) -> list[str]:
    """Return the backends that would have no server that takes requests if these were drained."""
    found = statistics(path)
    # The one that lets requests wait is a backup.
    up = [row for row in found if row["bck"] == "0" and row["status"].startswith("UP") and row["weight"] != "0"]
    spared = {row["pxname"] for row in up if row["svname"] not in servers}
    return sorted({row["pxname"] for row in found if row["svname"] in servers} - spared)


def settled(found: list[dict[str, str]], state: str) -> bool:
    """Say whether waiting longer changes nothing: idle when drained; up, and given its share, when ready."""
    if state == "drain":
        return busy(found) == 0
    return all(row["status"].startswith(("UP", "no check")) and row["weight"] != "0" for row in found)


def end_probation(config: str, servers: list[str]) -> bool:
    """Take `weight 0` off the servers' lines, so that a reload finds them in rotation too. Returns whether it stood."""
    file = Path(config)
    text = file.read_text()
    names = "|".join(re.escape(name) for name in servers)
    new = re.sub(rf"(?m)^(    server (?:{names}) \S+) weight 0$", r"\1", text)
    if new == text:
        return False
    beside = file.with_suffix(".new")
    beside.write_text(new)
    status = file.stat()
    os.chown(beside, status.st_uid, status.st_gid)
    beside.chmod(status.st_mode & 0o777)
    beside.replace(file)
    return True


def converge(path: str, servers: list[str], state: str, wait: int, config: str = "", others: int = 0) -> dict[str, Any]:
    """Set the state where it differs, and wait. Returns changed, running (requests left), seconds and states.

    others: seconds to wait before that until each of their backends has another server that takes requests; where one
    still has none, nothing is done, and the answer says so.
    """
    begun = time.monotonic()
    while others and (alone := left_alone(path, servers)):
        if time.monotonic() - begun > others:
            return {"failed": True, "msg": f"no other replica takes requests for {', '.join(alone)}"}
        time.sleep(PAUSE)
    begun = time.monotonic()
    changed = bool(config) and state == "ready" and end_probation(config, servers)
    found = rows(path, servers)
    for row in found if changed else []:
        # Not in percent: those are of what the configuration says, and that is 0.
        ask(path, f"set server {row['pxname']}/{row['svname']} weight 1")
    out = kept_out(path) if found else set()
    for row in found:
        if ((row["pxname"], row["svname"]) in out) != (state == "drain"):
            told = ask(path, f"set server {row['pxname']}/{row['svname']} state {state}").strip()
            if told:
                raise OSError(f"HAProxy refused {row['pxname']}/{row['svname']} {state}: {told}")
            changed = True
    if changed:
        time.sleep(PAUSE)
        found = rows(path, servers)
    while found and not settled(found, state) and time.monotonic() - begun < wait:
        time.sleep(PAUSE)
        found = rows(path, servers)
    return {
        "changed": changed,
        "running": busy(found),
        "settled": settled(found, state),
        "seconds": round(time.monotonic() - begun, 1),
        "servers": {f"{row['pxname']}/{row['svname']}": row["status"] for row in found},
        "gateway": True,
    }


def main() -> None:
    """Converge; where HAProxy does not run there is nothing to take out."""
    given = json.loads(sys.argv[1])
    try:
        result = converge(
            given["socket"], given["servers"], given["state"], given["wait"], given["config"], given.get("others", 0)
        )
    except (FileNotFoundError, ConnectionRefusedError):
        result = {"changed": False, "running": 0, "settled": True, "seconds": 0, "servers": {}, "gateway": False}
    except OSError as error:
        result = {"failed": True, "msg": f"{given['socket']}: {error}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
