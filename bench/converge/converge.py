#!/usr/bin/env python3
"""How long it takes to change nothing, and to change everything. All of one run on one machine; only ratios count.

    python bench/converge/converge.py [--repeat 3] [--hosts 16] [--no-swap]

Works on a copy of inventories/local.yml, brings it up if it is not, and leaves it up. Prints a table of medians, a line
as soon as it is measured:

- `up` with nothing to do, against a playbook of one ping task on the same inventory (runs alternate)
- `up` with nothing to do at many hosts against one host: what more hosts add to it is one look at each. Those hosts are
  names of this machine, all asked at the same time, so that its cores do the work of all of them
- a swap of all instances, from the first drain to the last return, against the sum of their engines' starts
- `docker compose up -d` of the same containers with nothing to do, where Compose is installed
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docker
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def timed(*command: str, env: dict[str, str]) -> float:
    """Seconds that a command takes; it must succeed."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return time.monotonic() - begun


def paired(repeat: int, *commands: list[str], env: dict[str, str]) -> list[float]:
    """Median seconds of each command; the runs alternate, so that a busy moment meets all of them."""
    seen: list[list[float]] = [[] for _ in commands]
    for _ in range(repeat):
        for times, command in zip(seen, commands, strict=True):
            times.append(timed(*command, env=env))
    return [statistics.median(times) for times in seen]


def swap_times(events: Path) -> tuple[float, float, int]:
    """Return (seconds of the whole roll, seconds of the engines' starts, number of instances) of a swap's events."""
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    tasks = [(line["task"], moment(line["at"])) for line in lines if line["event"] == "playbook_on_task_start"]
    begun = next(at for task, at in tasks if task.startswith("Old instance is drained"))
    ended = [
        moment(line["at"])
        for line in lines
        if line["event"] == "runner_on_ok" and str(line.get("task")).startswith("New instance takes requests")
    ]
    starts = [at for task, at in tasks if task.startswith("New instance runs")]
    ready = [at for task, at in tasks if task.startswith("New instance answers through")]
    return ended[-1] - begun, sum(b - a for a, b in zip(starts, ready, strict=True)), len(ended)


def moment(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.datetime.fromisoformat(text).timestamp()


def compose_program() -> list[str]:
    """Compose as Docker's plugin, or as the program that older distributions have; empty without either."""
    for program in (["docker", "compose"], ["docker-compose"]):
        asked = [*program, "version"]
        if shutil.which(program[0]) and subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return program
    return []


def compose_file(folder: Path) -> Path:
    """The same containers as a Compose file, under names of their own and without published ports."""
    services: dict[str, Any] = {}
    for container in docker.from_env().containers.list(filters={"label": "deployctl.site=local"}):
        services[container.name] = {
            "image": container.attrs["Image"],
            "entrypoint": ["sleep"],
            "command": ["infinity"],
            "user": container.attrs["Config"]["User"],
        }
    file = folder / "compose.yml"
    file.write_text(yaml.safe_dump({"services": services}))
    return file


def report(what: str, seconds: float, against: str, other: float) -> None:
    """Print what was measured: what comes later may fail, or be stopped."""
    print(f"{what:<30}{seconds:>8.2f}  {against:<34}{other:>8.2f}{seconds / other:>8.2f}", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--no-swap", action="store_true")
    chosen = parser.parse_args()
    print(f"{'what':<30}{'s':>8}  {'against':<34}{'s':>8}{'ratio':>8}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-converge-") as made:
        folder = Path(made)
        shutil.copytree(ROOT / "inventories", folder / "inventories")
        secrets = ROOT / ".secrets"
        if secrets.is_dir():
            shutil.copytree(secrets, folder / ".secrets")
        inventory = str(folder / "inventories/local.yml")
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env |= {"DEPLOYCTL_RUNS_DIR": str(folder / "runs"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        timed("deployctl", "up", inventory, env=env)
        ping = ["ansible-playbook", "-i", inventory, str(HERE / "ping.yml")]
        up, floor = paired(chosen.repeat, ["deployctl", "up", inventory], ping, env=env)
        report("up, nothing to do", up, "one ping task", floor)
        many = folder / "many.yml"
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        many.write_text(yaml.safe_dump({"all": {"hosts": {f"host{n}": local for n in range(chosen.hosts)}}}))
        look = [str(HERE / "look.yml"), "-f", str(chosen.hosts)]
        all_, one = paired(
            chosen.repeat,
            ["ansible-playbook", "-i", str(many), *look],
            ["ansible-playbook", "-i", str(many), "-l", "host0", *look],
            env=env,
        )
        report(f"one look at {chosen.hosts} hosts", all_, "at one host", one)
        report(f"up + {chosen.hosts - 1} further looks", up + all_ - one, "up, nothing to do", up)
        if not chosen.no_swap:
            models = folder / "inventories/group_vars/local/models.yml"
            changed = yaml.safe_load(models.read_text())
            changed["models"][0]["context_length"] = 1024
            models.write_text(yaml.safe_dump(changed))
            timed("deployctl", "swap", inventory, env=env)
            newest = sorted((folder / "runs").glob("*-swap"))[-1]
            roll, starts, count = swap_times(newest / "events.jsonl")
            report(f"swap of {count} instances", roll, f"{count} engine starts", starts)
            shutil.copy(ROOT / "inventories/group_vars/local/models.yml", models)
            timed("deployctl", "swap", inventory, env=env)
        program = compose_program()
        if program:
            # The project's name as an option: Compose 1, which Debian 12 has, knows no such key in the file.
            compose = [*program, "-p", "bench-converge", "-f", str(compose_file(folder))]
            timed(*compose, "up", "-d", env=env)
            (again,) = paired(chosen.repeat, [*compose, "up", "-d"], env=env)
            report("up, nothing to do", up, f"{' '.join(program)} up -d, the same", again)
            timed(*compose, "down", env=env)
        else:
            print("docker compose is not installed (Debian: apt-get install docker-compose): not compared")


if __name__ == "__main__":
    main()
