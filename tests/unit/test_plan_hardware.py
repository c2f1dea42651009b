"""Real GPUs against declared ones, and which of them work together."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from plan_site import site_input, write

from deploy_cli.errors import Problem
from deploy_cli.plan import hardware, make_plan
from deploy_cli.plan.shapes import Placed, Plan, SiteInput


def gpu(index: int, node: int = 0, **more: Any) -> dict[str, Any]:
    found = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA L40S",
        "memory_total_mib": 46068,
        "pci": f"0000:0{index}:00.0",
        "mig": None,
        "numa_node": node,
        "cpus": f"{node * 24}-{node * 24 + 23}",
        "usable": True,
        "problems": [],
    }
    return {**found, **more}


def facts(gpus: list[dict[str, Any]], links: dict[tuple[int, int], str] | None = None) -> dict[str, Any]:
    told = [{"a": f"GPU-{a}", "b": f"GPU-{b}", "kind": kind} for (a, b), kind in (links or {}).items()]
    return {"gpus": gpus, "links": told, "problems": []}


def given(models: list[dict[str, Any]], seen: dict[str, Any], **more: Any) -> SiteInput:
    devices = [{"kind": "nvidia", "count": 4, "model": "L40S", "memory_gib": 44.98}]
    with tempfile.TemporaryDirectory() as name:
        values = {
            "ansible_connection": "local",
            "devices": devices,
            "haproxy_api_keys": [{"id": "tests", "key": "0123456789abcdef-not-a-real-key"}],
        }
        main, entries = yaml.safe_dump(values), yaml.safe_dump({"models": models})
        write(Path(name), {"group_vars/local/main.yml": main, "group_vars/local/models.yml": entries})
        before = Path.cwd()
        os.chdir(name)
        try:
            made = site_input(Path(name))
        finally:
            os.chdir(before)
    host = made.groups["serving"][0]
    return dataclasses.replace(made, gpus={host: seen}, **more)


def planned(made: SiteInput) -> Plan:
    found = make_plan(made)
    assert isinstance(found, Plan), found
    return found


def refused(made: SiteInput) -> str:
    found = make_plan(made)
    assert isinstance(found, list)
    assert all(isinstance(p, Problem) and p.hint for p in found)
    return "\n".join(p.what for p in found)


CHAT = {"name": "chat", "source": "synthetic:tiny-chat", "replicas": 4}


def test_one_instance_per_gpu_by_uuid_beside_its_cpus() -> None:
    plan = planned(given([CHAT], facts([gpu(0), gpu(1), gpu(2, 1), gpu(3, 1)])))
    assert sorted(i.device_uuids[0] for i in plan.instances) == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    last = next(i for i in plan.instances if i.device_uuids == ["GPU-3"])
    assert (last.cpus, last.numa_nodes) == ("24-47", [1])
    assert not plan.hosts[last.host]["declared"]


def test_a_lost_gpu_is_refused_and_named() -> None:
    seen = facts([gpu(0), gpu(1), gpu(2), gpu(3, usable=False, problems=["gpu_lost"])])
    seen["problems"] = [{"code": "gpu_lost", "what": "GPU 3 (0000:03:00.0) is lost", "hint": "", "gpu": "GPU-3"}]
    told = refused(given([CHAT], seen))
    assert "declares 4 GPUs, and 3 can be used: GPU 3 (0000:03:00.0) is lost" in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "NVIDIA A40"}, "is a NVIDIA A40, declared is `L40S`"),
        ({"memory_total_mib": 40000}, "has 39.06 GiB of memory"),
        ({"mig": "enabled"}, "MIG is enabled on GPU 1"),
    ],
)
def test_other_hardware_than_declared_is_refused(change: dict[str, Any], said: str) -> None:
    assert said in refused(given([CHAT], facts([gpu(0), gpu(1, **change), gpu(2), gpu(3)])))


def test_more_gpus_than_declared_is_a_warning() -> None:
    plan = planned(given([CHAT], facts([gpu(i) for i in range(5)])))
    assert any("and has 5" in warning.what for warning in plan.warnings)


def test_instances_stay_on_their_gpus_when_indices_shift() -> None:
    made = given([{**CHAT, "replicas": 2}], facts([gpu(i) for i in range(4)]))
    host = made.groups["serving"][0]
    current = {"chat-0": Placed(host, ("GPU-3",)), "chat-1": Placed(host, ("GPU-1",))}
    shifted = facts([gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-3"), gpu(2, uuid="GPU-5"), gpu(3, uuid="GPU-6")])
    plan = planned(dataclasses.replace(made, gpus={host: shifted}, current=current))
    assert {i.name: i.device_uuids for i in plan.instances} == {"chat-0": ["GPU-3"], "chat-1": ["GPU-1"]}


NODES = {(0, 1): "SYS", (0, 2): "NODE", (0, 3): "SYS", (1, 2): "SYS", (1, 3): "NODE", (2, 3): "SYS"}
NVLINKS = {(0, 1): "NV1", (0, 2): "NV1", (0, 3): "NV2", (1, 2): "NV2", (1, 3): "NV1", (2, 3): "NV1"}


@pytest.mark.parametrize(("links", "pairs"), [(NODES, [{0, 2}, {1, 3}]), (NVLINKS, [{0, 3}, {1, 2}])])
def test_tensor_parallel_takes_the_best_connected_gpus(
    links: dict[tuple[int, int], str], pairs: list[set[int]]
) -> None:
    wide = {"name": "wide", "source": "synthetic:tiny-chat", "replicas": 2, "tensor_parallel": 2}
    plan = planned(given([wide], facts([gpu(i) for i in range(4)], links)))
    assert sorted((set(i.devices) for i in plan.instances), key=min) == pairs


def test_a_small_model_leaves_the_linked_pair_to_the_wide_one() -> None:
    wide = {"name": "wide", "source": "synthetic:tiny-chat", "replicas": 1, "tensor_parallel": 2}
    small = {"name": "small", "source": "synthetic:tiny-chat", "replicas": 2}
    plan = planned(given([small, wide], facts([gpu(i) for i in range(4)], {**NODES, (1, 2): "NV4"})))
    assert next(set(i.devices) for i in plan.instances if i.model == "wide") == {1, 2}


def test_the_capability_that_a_driver_tells_counts_where_none_is_declared() -> None:
    old = facts([gpu(i, compute_capability="7.0") for i in range(4)])
    assert "compute capability 7.0" in refused(given([CHAT], old))
    planned(given([CHAT], facts([gpu(i, compute_capability="8.9") for i in range(4)])))


def test_unlike_gpus_are_no_set_for_one_instance() -> None:
    wide = {"name": "wide", "source": "synthetic:tiny-chat", "replicas": 1, "tensor_parallel": 3}
    mixed = [gpu(0), gpu(1, name="Tesla T4"), gpu(2), gpu(3)]
    made = given([wide], facts(mixed, NVLINKS))
    hosts = {name: {**values, "devices": [{"kind": "nvidia", "count": 4}]} for name, values in made.hosts.items()}
    (instance,) = planned(dataclasses.replace(made, hosts=hosts)).instances
    assert instance.devices == [0, 2, 3]


@pytest.mark.parametrize(
    ("model", "name", "fits"),
    [
        ("L40S", "NVIDIA L40S", True),
        ("L4", "NVIDIA L40S", False),
        ("A10", "NVIDIA A100-SXM4-40GB", False),
        ("A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB", True),
        ("RTX4090", "NVIDIA GeForce RTX 4090", True),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("A100-SXM", "NVIDIA A100-SXM4-80GB", True),
        ("A100-SXM4-80", "NVIDIA A100-SXM4-80GB", True),
    ],
)
def test_a_model_is_named_by_whole_words(model: str, name: str, fits: bool) -> None:
    told = list(hardware.differences("gpu1", gpu(0, name=name), {"model": model}))
    assert not told if fits else "declared is" in told[0][0]
