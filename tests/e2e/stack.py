"""What the tests of the whole stack share: a copy of the local site, the command line, and the client's settings."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

REPO = Path(__file__).resolve().parents[2]


@dataclass
class Site:
    """The local site in a folder of its own, so that the tests can edit it as a user would."""

    root: Path

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return self.root / "inventories/local.yml"

    @property
    def models_file(self) -> Path:
        """Where models are added."""
        return self.root / "inventories/group_vars/local/models.yml"

    @property
    def runs(self) -> list[Path]:
        """Run folders, oldest first."""
        return sorted((self.root / "runs").glob("2*"))

    def env(self) -> dict[str, str]:
        """Environment of every command: runs are kept beside the copied site."""
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "DEPLOYCTL_RUNS_DIR": str(self.root / "runs"), "COLUMNS": "160"}

    def deployctl(self, command: str, *args: str, code: int | None = 0, timeout: int = 900) -> str:
        """Run a command on the site; its exit code must be `code` (None: any). Returns all it printed."""
        done = subprocess.run(
            ["deployctl", command, str(self.inventory), *args],
            cwd=REPO,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        printed = done.stdout + done.stderr
        print(f"$ deployctl {command} {' '.join(args)} -> {done.returncode}\n{printed[-6000:]}")
        assert code is None or done.returncode == code, f"{command}: exit code {done.returncode}, not {code}"
        return printed

    def start(self, command: str) -> subprocess.Popen[str]:
        """A command in the background."""
        return subprocess.Popen(
            ["deployctl", command, str(self.inventory)],
            cwd=REPO,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def acceptance(self) -> dict[str, Any]:
        """acceptance.json of the last run that has one."""
        newest = [r for r in self.runs if (r / "acceptance.json").exists()][-1]
        found: dict[str, Any] = json.loads((newest / "acceptance.json").read_text())
        return found

    def client_env(self) -> dict[str, str]:
        """What `deployctl env` prints, as a dict."""
        done = subprocess.run(
            ["deployctl", "env", str(self.inventory)],
            cwd=REPO,
            env=self.env(),
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def models(self) -> list[dict[str, Any]]:
        """The site's models."""
        found: list[dict[str, Any]] = yaml.safe_load(self.models_file.read_text())["models"]
        return found

    def write_models(self, models: list[dict[str, Any]]) -> None:
        """Edit the site's models."""
        self.models_file.write_text(yaml.safe_dump({"models": models}))


def instances(engine: docker.DockerClient) -> dict[str, Any]:
    """The site's vLLM containers by name."""
    found = engine.containers.list(all=True, filters={"label": ["deployctl.site=local", "deployctl.role=vllm"]})
    return {c.name: c for c in found}


def ids(engine: docker.DockerClient) -> dict[str, str]:
    """Ids of the site's vLLM containers by name: another id is another container."""
    return {name: container.id for name, container in instances(engine).items()}


def shipped(**changes: Any) -> list[dict[str, Any]]:
    """The models as the repository has them, with changes to the first."""
    models = yaml.safe_load((REPO / "inventories/group_vars/local/models.yml").read_text())["models"]
    return [{**models[0], **changes}, *models[1:]]


def engine_core(container: Any) -> int:
    """Host process number of the container's EngineCore."""
    for pid, *command in container.top(ps_args="-eo pid,args")["Processes"] or []:
        if "EngineCore" in " ".join(command):
            return int(pid)
    raise AssertionError("no EngineCore found")


def haproxy_up() -> str:
    """Servers of the pool that HAProxy calls UP, as `n/2`."""
    rows = requests.get("http://127.0.0.1:8404/;csv", timeout=5).text.splitlines()
    up = [r for r in rows if r.startswith("tiny-chat,tiny-chat-") and ",UP," in r]
    return f"{len(up)}/2"
