"""The end of the stack: what `down` leaves."""

from __future__ import annotations

from pathlib import Path

import docker
from stack import Site


def test_down_leaves_no_container_and_no_network(site: Site, engine: docker.DockerClient) -> None:
    # A site whose models cannot be planned can be taken down all the same.
    good = site.models()
    site.write_models([{"name": "half an ent"}])
    assert "source" in site.deployctl("plan", code=2)
    site.deployctl("down")
    site.write_models(good)
    assert engine.containers.list(all=True, filters={"label": "deployctl.site=local"}) == []
    assert "deployctl" not in [network.name for network in engine.networks.list()]
    assert engine.images.list("haproxy")
    assert list(Path("/var/lib/deployctl/models").glob("synthetic*"))
    site.deployctl("down")
