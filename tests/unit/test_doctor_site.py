"""What the doctor says of addresses, models and GPUs that the rest of the site would stumble over later."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded
from test_doctor import GPU, LOOK, changed, line, lines, of, plan

from deploy_cli.doctor.judge import judge
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


@pytest.mark.parametrize("answer", [{"look": changed(LOOK, ports=None)}, {"unreachable": True, "msg": "no route"}])
def test_addresses_are_told_whatever_the_host_has_answered(answer: dict[str, Any]) -> None:
    found = judge("gpu1", answer, None, of() | {"published": ["gpu1.example.org"], "namesakes": ["gw"]})
    assert [entry.check for entry in found].count("address") == 2


def test_a_model_that_lies_on_the_host_is_looked_for() -> None:
    need = of() | {"sources": {"own": "/srv/own"}}
    assert blocking(lines(need=need, sources=["own"])) == []
    assert blocking(lines(need=need, sources=[])) == ["own: there is no model in /srv/own"]
    assert blocking(lines(need=need, sources=[], models=["own"])) == []  # in the store already


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


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        ({"present": True, "answers": False, "other": "podman under the name of docker"}, "podman"),
        ({"present": False, "answers": False, "candidate": "20.10.24+dfsg1-1+deb12u1"}, "too old for CDI"),
    ],
)
def test_an_engine_that_cannot_serve_keeps_up_away(docker: dict[str, Any], said: str) -> None:
    told = [entry for entry in judge("gpu1", {"look": {**LOOK, "docker": docker}}, GPU, of()) if entry.blocks]
    assert len(told) == 1 and said in told[0].what and told[0].hint
    new = {"present": False, "answers": False, "candidate": "26.1.5+dfsg1-9"}
    assert not [entry for entry in judge("gpu1", {"look": {**LOOK, "docker": new}}, GPU, of()) if entry.blocks]


def test_a_firewall_that_keeps_clients_away_is_told_at_the_gateway() -> None:
    closed, opened = {"name": "ufw", "open": []}, {"name": "firewalld", "open": [8000]}
    need = of("gw", haproxy_bind_address="0.0.0.0", haproxy_port=8000)
    assert (
        "ufw allow 8000/tcp" in line(judge("gw", {"look": {**LOOK, "firewall": closed}}, None, need), "firewall").hint
    )
    for host, firewall in (("gw", opened), ("gpu1", closed)):
        found = judge(host, {"look": {**LOOK, "firewall": firewall}}, GPU, of(host) if host != "gw" else need)
        assert not [entry for entry in found if entry.check == "firewall"]


def test_a_gpu_in_parts_is_no_device_of_a_container() -> None:
    parts = changed(GPU, gpus=[*GPU["gpus"], {**GPU["gpus"][0], "index": 2, "uuid": "GPU-c", "mig": "enabled"}])
    assert line(lines(gpu=parts), "gpu container").state == "ok"


@pytest.mark.parametrize(
    ("packages", "name"),
    [([], "docker.io"), (["containerd.io", "docker-ce=5:28.3.3-1"], "docker-ce"), (["own-engine"], "")],
)
def test_the_engine_among_the_packages(packages: list[str], name: str) -> None:
    assert of(docker_packages=packages)["docker_package"] == name


def test_the_key_that_dkms_signs_with() -> None:
    parts = loaded("playbooks/module_utils/host_parts.py")
    assert parts.boot_key("ID=ubuntu\n").endswith("MOK.der") and parts.boot_key("ID=debian\n").endswith("mok.pub")
    assert parts.dnf_held("nvidia-open-3:580.95.05-1.el9.*\ncuda-drivers\n") == ["nvidia-open", "cuda-drivers"]
