"""What the doctor says of addresses, models and GPUs that the rest of the site would stumble over later."""

from __future__ import annotations

from typing import Any

import pytest
from test_doctor import GPU, changed, line, lines, of, plan

from deploy_cli.doctor.lines import Line


def blocking(found: list[Line]) -> list[str]:
    return [entry.what for entry in found if entry.blocks]


@pytest.mark.parametrize("address", ["gpu1.example.org", "2001:db8::4"])
def test_ports_are_published_on_ipv4_addresses(address: str) -> None:
    (what,) = blocking(lines(need=of() | {"published": [address]}))
    assert address in what
    assert of()["published"] == ["10.0.0.1"]
    assert of("gw")["published"] == ["10.0.0.2"]  # spans of gpu1


def test_two_hosts_of_one_address_are_told() -> None:
    made = plan()
    made["hosts"]["gw"]["address"] = "10.0.0.1"
    (what,) = blocking(lines(need=of() | {"namesakes": ["gw"]}))
    assert "gw has the same address" in what
    assert of()["namesakes"] == []


def test_a_model_that_lies_on_the_host_is_looked_for() -> None:
    need = of() | {"sources": {"own": "/srv/own"}}
    assert blocking(lines(need=need, sources=["own"])) == []
    assert blocking(lines(need=need, sources=[])) == ["own: there is no model in /srv/own"]


@pytest.mark.parametrize(
    ("gpu", "entry", "said"),
    [
        ({"mig": "enabled"}, {}, "MIG is enabled"),
        ({}, {"model": "H100"}, "declared is `H100`"),
        ({"memory_total_mib": 23028}, {"memory_gib": 80}, "declared are 80"),
    ],
)
def test_gpus_that_the_plan_would_refuse(gpu: dict[str, Any], entry: dict[str, Any], said: str) -> None:
    need = of() | {"declared": [{"kind": "nvidia", "count": 2, **entry}]}
    seen = changed(GPU, gpus=[{**one, **gpu} for one in GPU["gpus"]])
    assert all(said in what for what in blocking(lines(gpu=seen, need=need)))
    assert len(blocking(lines(gpu=seen, need=need))) == 2
    assert line(lines(), "gpus").state == "ok"
