#!/usr/bin/env python3
"""Under load: a host that serves is rebooted, one is unplugged twice within a change, all get another Docker.

PYTHONPATH=tests/faults faults.py URL KEY INVENTORY

Prints one JSON line for each; ends with 1 when anything failed that must not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from load import Load
from table import Row, keep, kept

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("molecule-serve1", "molecule-serve2", "molecule-front")
NEWER = "999.0"
NETWORK, ADDRESS = "molecule-cluster", "198.18.79.3"


def docker(*words: str) -> str:
    """What docker prints."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def states() -> dict[str, str]:
    """What HAProxy calls each replica."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8404/;csv', timeout=3).read().decode())"
    rows = [row.split(",") for row in docker("exec", "molecule-front", "python3", "-c", read).splitlines()]
    return {row[1]: row[17] for row in rows if row[0] == "tiny-chat" and row[1].startswith("tiny-chat-")}


def both_up() -> bool:
    """Whether HAProxy calls both replicas UP."""
    return list(states().values()) == ["UP", "UP"]


def wait_for(limit: float, up: bool = True) -> float:
    """Seconds until both replicas take requests, or with `up` false until one of them does not."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        time.sleep(0.5)
        if both_up() == up:
            return time.monotonic() - begun
    raise SystemExit(f"{'not whole' if up else 'still whole'} after {limit} s")


def tell(fault: str, load: Load, recovered: float) -> None:
    """One line of the table; a whole answer that failed, or a stream that ended short in silence, ends the test."""
    row = Row.of(fault, load, recovered)
    # Beside those of this machine, which `make faults` has seen just before.
    keep([*(other for other in kept() if other.fault != fault), row])
    print(json.dumps(asdict(row)), flush=True)
    if row.failed or load.chats.sent < 5:
        raise SystemExit(f"{load.chats.failed[:3]} {load.streams.failed[:3]}")


def run(change: list[str], expected: int, within: int = 900) -> str:
    """What a change prints that ends with `expected` within so many seconds; its last lines where it does not."""
    try:
        done = subprocess.run(change, capture_output=True, text=True, cwd=ROOT, timeout=within, check=False)
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode(errors="replace")
        raise SystemExit(f"not done after {within} s:\n{printed[-3000:]}") from None
    if done.returncode != expected:
        raise SystemExit(f"ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def rebooted(url: str, key: str) -> None:
    """A host that serves is rebooted; nobody helps it."""
    with Load(url, key, "chat-default", chats=2, streams=1, pause=0.3) as load:
        time.sleep(3)
        docker("restart", "molecule-serve2")
        # A host restarts faster than HAProxy misses it: who asks too early sees the replica that is gone.
        recovered = wait_for(30, up=False) + wait_for(180)
        time.sleep(2)
    tell("host rebooted", load, recovered)


def drained_and_lost(url: str, key: str, inventory: str) -> None:
    """A host is unplugged while its replica is drained; that takes requests again without a hand once it is back."""
    # Somebody has changed it: only this one is replaced.
    docker("exec", "molecule-serve2", "docker", "update", "--restart=no", "vllm-tiny-chat-1")
    with Load(url, key, "chat-default", chats=2, streams=0, pause=0.3) as load:
        begun = subprocess.Popen(
            ["deployctl", "swap", inventory], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        end = time.monotonic() + 900
        while states().get("tiny-chat-1") != "DRAIN":
            if begun.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"nothing was drained; ended with {begun.poll()}")
        docker("network", "disconnect", NETWORK, "molecule-serve2")
        printed, _ = begun.communicate(timeout=300)
        if begun.returncode != 3 or "serve2" not in printed:
            raise SystemExit(f"ended with {begun.returncode}:\n{printed[-3000:]}")
        docker("network", "connect", "--ip", ADDRESS, NETWORK, "molecule-serve2")
        recovered = wait_for(60)
    tell("host unplugged while its replica is drained", load, recovered)


def unplugged(url: str, key: str, inventory: str) -> None:
    """A host is unplugged in the middle of a change; the same command finishes the change once it is back."""
    change = ["deployctl", "up", inventory, "-e", json.dumps({"vllm_args": ["--max-num-seqs", "64"]})]
    with Load(url, key, "chat-default", chats=2, streams=0, pause=0.3) as load:
        begun = subprocess.Popen(change, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        printed = ""
        for line in begun.stdout or ():
            # Just before the first replica is drained: in the same second with it, both would be away.
            if "== Gateway" in line and "== Gateway" not in printed:
                docker("network", "disconnect", NETWORK, "molecule-serve2")
            printed += line
        begun.wait(60)
        if begun.returncode != 3 or "serve2" not in printed:
            raise SystemExit(f"ended with {begun.returncode}:\n{printed[-3000:]}")
        docker("network", "connect", "--ip", ADDRESS, NETWORK, "molecule-serve2")
        run(change, expected=0)
        recovered = wait_for(120)
    tell("host unplugged in the middle of a change", load, recovered)


def packed(host: str) -> None:
    """A newer Docker is in the host's package sources."""
    docker("cp", f"{ROOT}/molecule/docker/newer_packages.sh", f"{host}:/srv/newer_packages.sh")
    docker("exec", host, "bash", "/srv/newer_packages.sh", NEWER)


def upgraded(url: str, key: str, inventory: str) -> None:
    """Docker of every host is replaced by a newer one (the same, packed again), host by host.

    The first time one package is damaged: the run ends in the middle of the first host, and that one serves as before.
    """
    for host in HOSTS:
        packed(host)
    docker("exec", "molecule-serve1", "truncate", "--size=-1", "/srv/newer/docker.io.deb")
    change = ["deployctl", "up", inventory, "-e", f"docker_version={NEWER}"]
    change += ["-e", json.dumps({"vllm_args": ["--max-num-seqs", "64"]})]
    with Load(url, key, "chat-default", chats=2, streams=1, pause=0.3) as load:
        printed = run(change, expected=3)
        if "docker.io.deb" not in printed or not both_up():
            raise SystemExit(f"both replicas up: {both_up()}:\n{printed[-3000:]}")
        packed("molecule-serve1")
        begun = time.monotonic()
        run(change, expected=0)
        wait_for(120)
        took = time.monotonic() - begun
    for host in HOSTS:
        version = docker("exec", host, "dpkg-query", "--show", "--showformat=${Version}", "docker.io")
        if version != NEWER:
            raise SystemExit(f"{host} has Docker {version}")
    tell("Docker of every host upgraded", load, took)


if __name__ == "__main__":
    rebooted(sys.argv[1], sys.argv[2])
    drained_and_lost(*sys.argv[1:])
    unplugged(*sys.argv[1:])
    upgraded(*sys.argv[1:])
