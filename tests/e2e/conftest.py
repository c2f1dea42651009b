"""Fixtures of the whole-stack tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import docker
import pytest
from stack import REPO, Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The local site, copied; whatever a test leaves running is taken down at the end."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(REPO / "inventories", root / "inventories")
    made = Site(root)
    yield made
    shutil.copytree(REPO / "inventories", root / "inventories", dirs_exist_ok=True)  # one that can be planned
    made.deployctl("down", code=None)


@pytest.fixture(scope="session")
def engine(site: Site) -> docker.DockerClient:
    """The Docker engine of this machine; it exists once the stack is up."""
    return docker.from_env()
