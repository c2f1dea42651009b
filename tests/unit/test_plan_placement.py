"""Placement and ports: what runs stays where it is, whatever else comes or goes."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from plan_site import roles

from deploy_cli.plan import Placed, Plan, SiteInput, make_plan, models
from deploy_cli.plan.findings import Findings
from deploy_cli.plan.placement import Floor
from deploy_cli.plan.shapes import Device, Model

GPUS = [{"kind": "nvidia", "count": 4}]
KEYS = [{"id": "tests", "key": "0123456789abcdef-not-a-real-key"}]


def model(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": "synthetic:tiny-chat", **more}


def site(
    models: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, Any] | None = None,
    current: Mapping[str, Placed] | None = None,
    **variables: Any,
) -> SiteInput:
    specs, defaults = roles()
    devices = hosts or {"gpu1": GPUS}
    common = {"models": list(models), "haproxy_api_keys": KEYS, **variables}
    return SiteInput(
        inventory="dc.yml",
        site="dc",
        groups={"serving": list(devices), "gateway": ["gpu1"], "telemetry": ["gpu1"], "dc": list(devices)},
        hosts={h: {**common, "devices": d} for h, d in devices.items()},
        specs=specs,
        defaults=defaults,
        current=current or {},
    )


def planned(
    models: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, Any] | None = None,
    current: Mapping[str, Placed] | None = None,
    **variables: Any,
) -> dict[str, Placed]:
    outcome = make_plan(site(models, hosts, current, **variables))
    assert isinstance(outcome, Plan), outcome
    return {i.name: Placed(i.host, tuple(i.devices), i.port) for i in outcome.instances}


def test_equal_input_gives_an_equal_plan() -> None:
    models = [model("a", replicas=2), model("b", replicas="max")]
    assert make_plan(site(models)) == make_plan(site(models))


def test_adding_a_model_moves_no_other() -> None:
    before = planned([model("b", replicas=2), model("c")])
    after = planned([model("a"), model("b", replicas=2), model("c")], current=before)
    assert {n: after[n] for n in before} == before
    assert after["a-0"].devices == (3,)


def test_removing_a_model_moves_no_other() -> None:
    before = planned([model("a"), model("b", replicas=2), model("c")])
    after = planned([model("b", replicas=2), model("c")], current=before)
    assert after == {n: p for n, p in before.items() if n != "a-0"}


def test_what_comes_in_place_of_another_takes_free_devices_first() -> None:
    before = planned([model("a"), model("b")])
    assert before["a-0"].devices == (0,)
    after = planned([model("new"), model("b")], current=before)
    assert after["new-0"].devices == (2,)
    full = planned([model("a", replicas=4)])
    assert planned([model("new")], current=full)["new-0"].devices == (0,)


def test_changing_the_order_moves_nothing() -> None:
    models = [model("a"), model("b", replicas=2), model("c")]
    before = planned(models)
    for order in itertools.permutations(models):
        assert planned(order, current=before) == before


def test_fewer_replicas_keep_the_first_ones() -> None:
    before = planned([model("a", replicas=4)])
    assert planned([model("a", replicas=2)], current=before) == {n: before[n] for n in ("a-0", "a-1")}


def test_a_wide_model_comes_beside_what_runs() -> None:
    before = planned([model("a", replicas=2)])
    after = planned([model("wide", tensor_parallel=2), model("a", replicas=2)], current=before)
    assert after["wide-0"].devices == (2, 3)
    assert {n: after[n] for n in before} == before


def test_max_gives_way_with_its_last_instances() -> None:
    before = planned([model("a", replicas="max")])
    assert len(before) == 4
    after = planned([model("a", replicas="max"), model("b")], current=before)
    assert {n: after[n] for n in ("a-0", "a-1", "a-2")} == {n: before[n] for n in ("a-0", "a-1", "a-2")}
    assert "a-3" not in after
    assert after["b-0"].devices == before["a-3"].devices


def test_max_takes_back_what_became_free() -> None:
    before = planned([model("a", replicas="max"), model("b")])
    after = planned([model("a", replicas="max")], current=before)
    assert {n: after[n] for n in before if n != "b-0"} == {n: p for n, p in before.items() if n != "b-0"}
    assert sorted(after) == ["a-0", "a-1", "a-2", "a-3"]


def test_numbers_of_a_max_model_have_no_gap() -> None:
    running = {"a-0": Placed("gpu1", (0,), 8200), "a-2": Placed("gpu1", (2,), 8202)}
    after = planned([model("a", replicas="max"), model("b", replicas=2)], current=running)
    assert sorted(n for n in after if n.startswith("a")) == ["a-0", "a-1"]
    assert after["a-0"] == running["a-0"]


@pytest.mark.parametrize(
    "stale",
    [
        Placed("gone", (0,), 8200),
        Placed("gpu1", (9,), 8200),
        Placed("gpu1", (0, 1), 8200),
        Placed("gpu1", (), 8200),
    ],
)
def test_a_place_that_is_no_longer_valid_is_given_up(stale: Placed) -> None:
    after = planned([model("a")], current={"a-0": stale})
    assert after["a-0"].devices == (0,)


def test_two_that_claim_one_device_do_not_share_it() -> None:
    both = {"a-0": Placed("gpu1", (1,), 8200), "b-0": Placed("gpu1", (1,), 8201)}
    after = planned([model("a"), model("b")], current=both)
    assert after["a-0"].devices == (1,)
    assert after["b-0"].devices != (1,)


def test_a_port_that_something_else_needs_is_given_up() -> None:
    for port in (8000, 9999, None):
        after = planned([model("a")], current={"a-0": Placed("gpu1", (0,), port)})
        assert 8100 <= (after["a-0"].port or 0) < 8900


def test_ports_that_meet_are_resolved_and_stay_resolved() -> None:
    before = planned([model("a"), model("b"), model("c")], vllm_port_range=3)
    assert sorted(p.port or 0 for p in before.values()) == [8100, 8101, 8102]
    after = planned([model("c"), model("b")], current=before, vllm_port_range=3)
    assert after == {n: before[n] for n in ("b-0", "c-0")}


def test_a_port_does_not_depend_on_the_other_models() -> None:
    alone = planned([model("b")])["b-0"].port
    assert planned([model("a", replicas=3), model("b")])["b-0"].port == alone


def test_wide_models_take_neighbours_of_one_kind_on_one_host() -> None:
    mixed = [{"kind": "nvidia", "count": 1, "model": "A"}, {"kind": "nvidia", "count": 3, "model": "B"}]
    assert planned([model("w", tensor_parallel=2)], {"gpu1": mixed})["w-0"].devices == (2, 3)
    outcome = make_plan(
        site(
            [model("w", tensor_parallel=2)],
            {"gpu1": [{"kind": "nvidia", "count": 1}], "gpu2": [{"kind": "nvidia", "count": 1}]},
        )
    )
    assert isinstance(outcome, list)
    assert "spans 2 devices, but no host holds as many" in outcome[0].what


def test_a_span_is_told_by_the_devices_that_are_equal() -> None:
    mixed = [{"kind": "nvidia", "count": 2, "model": "A100"}, {"kind": "nvidia", "count": 3, "model": "L40S"}]
    outcome = make_plan(site([model("w", tensor_parallel=4)], {"gpu1": mixed}))
    assert isinstance(outcome, list)
    assert "the largest, gpu1, holds 3 L40S" in outcome[0].what and "to 3 or less" in outcome[0].hint


def test_replicas_spread_over_hosts() -> None:
    after = planned([model("a", replicas=2), model("b", replicas=2)], {"gpu1": GPUS, "gpu2": GPUS})
    assert [after[n].host for n in ("a-0", "a-1", "b-0", "b-1")] == ["gpu1", "gpu2", "gpu1", "gpu2"]


def test_shares_of_memory_fill_a_device_and_no_more() -> None:
    one = {"gpu1": [{"kind": "nvidia", "count": 1}]}
    third = {"memory_share": 1 / 3}
    assert len(planned([model("a", replicas=3, **third)], one)) == 3
    outcome = make_plan(site([model("a", replicas=4, **third)], one))
    assert isinstance(outcome, list)
    assert "and 3 fit" in outcome[0].what


@pytest.mark.parametrize(
    ("first", "second", "free", "hint"),
    [
        ({"memory_share": 0.6}, {"memory_share": 0.6}, "0.4", "lower `memory_share`, remove"),
        ({"memory_share": 0.6}, {"memory_share": 0.6, "replicas": "max"}, "0.4", "lower `memory_share`, take"),
        ({}, {"memory_share": 0.6}, "0", "give `a` a `memory_share`, remove"),
        ({"memory_share": 0.6}, {"replicas": "max"}, "0.4", "give `b` a `memory_share`, take"),
        ({"memory_share": 1.0}, {"replicas": "max"}, "0", "lower `memory_share` and give `b` a `memory_share`, take"),
        ({}, {}, None, "remove the entry, take"),
    ],
)
def test_shares_that_do_not_fit_are_explained(
    first: dict[str, Any], second: dict[str, Any], free: str | None, hint: str
) -> None:
    outcome = make_plan(site([model("a", **first), model("b", **second)], {"gpu1": [{"kind": "nvidia", "count": 1}]}))
    assert isinstance(outcome, list)
    (problem,) = [p for p in outcome if p.severity == "error"]
    assert problem.hint.startswith(hint)
    assert ("memory is free" in problem.what) == bool(free)
    assert f"at most {free or ''}" in problem.what or not free


def test_engines_on_one_gpu_start_one_after_the_other() -> None:
    outcome = make_plan(site([model("a", replicas=3, memory_share=0.3)], {"gpu1": [{"kind": "nvidia", "count": 2}]}))
    assert isinstance(outcome, Plan)
    order = {i.name: (i.devices, i.start_after) for i in outcome.instances}
    assert order == {"a-0": ([0], None), "a-1": ([1], None), "a-2": ([0], "a-0")}


def test_cpu_engines_start_together() -> None:
    outcome = make_plan(site([model("a", replicas=2)], {"gpu1": [{"kind": "cpu", "count": 2}]}))
    assert isinstance(outcome, Plan)
    assert [i.start_after for i in outcome.instances] == [None, None]


def test_a_large_site_is_planned_at_once() -> None:
    hosts = {f"gpu{n}": [{"kind": "nvidia", "count": 8}] for n in range(1, 65)}
    models = [
        model("wide", tensor_parallel=4, replicas=16),
        model("narrow", replicas=100),
        model("rest", replicas="max"),
    ]
    begun = time.process_time()  # of this process: what else the machine does is not the planner's
    after = planned(models, hosts)
    assert len(after) == 16 + 100 + (512 - 64 - 100)
    assert time.process_time() - begun < 5


def test_the_best_connected_set_is_found_on_every_host_of_a_large_site() -> None:
    equal = [Device(host, "nvidia", i, "H100", 80, uuid=f"{host}-{i}") for host in ("a", "b", "c") for i in range(8)]
    links = {
        frozenset((f"{host}-{i}", f"{host}-{j}")): 118 if i % 2 == j % 2 else 10
        for host in ("a", "b", "c")
        for i, j in itertools.combinations(range(8), 2)
    }
    floor = Floor(equal, {}, links)
    wide = dataclasses.replace(planned_model(), tensor_parallel=4)
    for replica in range(6):
        spot = floor.best(wide)
        assert spot is not None and len({device.index % 2 for device in spot}) == 1
        floor.sit(wide, replica, spot)


def planned_model() -> Model:
    made = site([model("wide")])
    return models.read(made, "gpu1", ["0.32.0"], Findings(made))[0]


def test_cpu_and_gpus_of_one_host_are_refused() -> None:
    outcome = make_plan(site([model("a")], {"gpu1": [{"kind": "cpu", "count": 1}, *GPUS]}))
    assert isinstance(outcome, list)
    assert "one image" in outcome[0].what


def test_a_host_that_calls_itself_localhost_is_reached_by_no_other() -> None:
    made = site([model("a", replicas=2)], {"gpu1": GPUS, "gpu2": GPUS})
    hosts = {**made.hosts, "gpu2": {**made.hosts["gpu2"], "site_address": "127.0.0.1"}}
    outcome = make_plan(dataclasses.replace(made, hosts=hosts))
    assert isinstance(outcome, list)
    assert "cannot reach gpu2 at 127.0.0.1" in outcome[0].what


def test_every_version_of_vllm_is_asked_for_its_flags() -> None:
    made = site([model("a", replicas=2, engine_args={"nonsense-flag": 1})], {"gpu1": GPUS, "gpu2": GPUS})
    hosts = {**made.hosts, "gpu1": {**made.hosts["gpu1"], "images_vllm_version": "0.19.0"}}  # not known
    outcome = make_plan(dataclasses.replace(made, hosts=hosts))
    assert isinstance(outcome, list)
    assert "nonsense-flag" in "".join(problem.what for problem in outcome)
