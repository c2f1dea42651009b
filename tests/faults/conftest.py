"""The site that faults are done to, and the table of what came of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from stack import REPO, Site
from table import keep, lines
from trials import ROWS, Faults

SMALL_DISK = "size=192m"


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """The local site on small disks for models and traces, up and accepted; taken down at the end."""
    keep([])
    root = tmp_path_factory.mktemp("faults")
    shutil.copytree(REPO / "inventories", root / "inventories")
    site = Site(root)
    disks = {name: root / name for name in ("models", "traces", "runs")}
    for folder in disks.values():
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL_DISK, "deployctl-faults", str(folder)], check=True)
    (root / "inventories/group_vars/local/disks.yml").write_text(
        json.dumps(
            {
                "model_store_dir": str(disks["models"]),
                "jaeger_data_dir": str(disks["traces"]),
                "host_checks_store_free_gib": 0.05,
                # Every change is judged; how fast an engine is, is not what is tried here.
                "acceptance_load_prompts": 16,
                "acceptance_load_concurrency": 4,
            }
        )
    )
    try:
        site.deployctl("up", timeout=1500)
        yield Faults(site, docker.from_env())
    finally:
        site.deployctl("down", code=None)
        for folder in disks.values():
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def pytest_runtest_logreport(report: Any) -> None:
    """Say at once what failed: the whole takes an hour."""
    if report.failed:
        print(f"\n{report.longreprtext[-6000:]}", file=sys.__stderr__, flush=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table; it is kept beside the runs as well."""
    if ROWS:
        terminalreporter.section("faults under load")
        for line in lines(ROWS):
            terminalreporter.write_line(line)
