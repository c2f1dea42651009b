"""Names and addresses of hosts: what SSH, HAProxy and the other hosts will be told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from test_plan_placement import GPUS, KEYS, model, site

from deploy_cli.errors import Problem
from deploy_cli.plan import Plan, SiteInput, make_plan, unnamed


def refused(host: str, **variables: Any) -> list[Problem]:
    """What is wrong with a site of one host of this name and these variables."""
    base = site([])
    values = {"models": [model("a")], "devices": GPUS, "haproxy_api_keys": KEYS, **variables}
    outcome = make_plan(
        SiteInput(
            inventory="dc.yml",
            site="dc",
            groups={name: [host] for name in ("serving", "gateway", "telemetry", "dc")},
            hosts={host: values},
            specs=base.specs,
            defaults=base.defaults,
        )
    )
    return [] if isinstance(outcome, Plan) else outcome


@pytest.mark.parametrize(
    "address",
    ["192.0.2.4", "gpu1", "gpu_1", "müller", "gpu-1.example.org", "2001:db8::1", "::1", "fe80::1%eth0", "localhost"],
)
def test_addresses_that_ssh_takes(address: str) -> None:
    assert refused("gpu1", ansible_host=address) == []


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("http://192.0.2.4/", "without"),
        ("root@192.0.2.5", "ansible_user"),
        ("192.0.2.5:2222", "ansible_port"),
        ("gpu1:2222", "ansible_port"),
        ("[2001:db8::1]:2222", "ansible_port"),
        ("[2001:db8::1]", "brackets"),
        ("192.0.2.300", "255"),
        ("192.0.2", "255"),
        ("192.0.2.4 ", "blank"),
        ("192.0.2.4\n", "blank"),
        ("-oProxyCommand=x", "name or address"),
        ("", "name or address"),
        (5, "255"),
        (["gpu1"], "name or address"),
    ],
)
def test_addresses_that_it_would_misread(address: object, hint: str) -> None:
    (problem,) = refused("gpu1", ansible_host=address)
    assert "`ansible_host`" in problem.what and hint in problem.hint


@pytest.mark.parametrize("name", ["GPU 4", "a,b", "root@gpu1", "192.0.2.300"])
def test_a_name_is_an_address_where_nothing_else_is_said(name: str) -> None:
    (problem,) = refused(name)
    assert name in problem.what and "ansible_host" in problem.hint
    assert refused(name, ansible_host="192.0.2.4") == []
    assert refused(name, ansible_connection="local") == []


@pytest.mark.parametrize("address", ["*", "0.0.0.0", "::", "[::]", "127.0.0.1", "2001:db8::1", "front.example.org"])
def test_addresses_that_the_gateway_can_listen_on(address: str) -> None:
    assert refused("gpu1", haproxy_bind_address=address) == []


@pytest.mark.parametrize("address", ["999.1.1.1", "127.0.0.1:8000", "http://0.0.0.0", "*:8000", "a b"])
def test_addresses_that_it_cannot_listen_on(address: str) -> None:
    (problem,) = refused("gpu1", haproxy_bind_address=address)
    assert "`haproxy_bind_address`" in problem.what and problem.hint


@pytest.mark.parametrize("address", ["192.0.2.300", "gpu1:22"])
def test_the_address_for_the_other_hosts_is_one(address: str) -> None:
    (problem,) = refused("gpu1", site_address=address)
    assert "`site_address`" in problem.what


@pytest.mark.parametrize("port", [0, 70000, "70000", "ssh"])
def test_the_port_of_ssh_is_one(port: object) -> None:
    (problem,) = refused("gpu1", ansible_port=port)
    assert "`ansible_port`" in problem.what


def test_a_site_comes_down_however_its_groups_stand_as_long_as_it_has_a_name() -> None:
    aside = dataclasses.replace(site([model("a")]), parents={"serving": ["dc"], "gateway": [], "telemetry": ["dc"]})
    assert isinstance(make_plan(aside), list)
    assert unnamed(aside) == []
    twice = {name: ["a", "b"] for name in ("serving", "gateway", "telemetry")}
    found = unnamed(dataclasses.replace(aside, site="", parents=twice))
    assert [f"group `{name}` has 2 parents" in p.what for p, name in zip(found, twice, strict=True)] == [True] * 3
    assert all("name the file of one" in p.hint for p in found), "as where a folder of sites is named"
