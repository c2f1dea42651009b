"""Values that a role, an engine or a client would choke on later are refused while nothing was touched yet."""

from __future__ import annotations

from typing import Any

import pytest
from plan_site import roles
from test_plan_placement import model, site

from deploy_cli.errors import Problem
from deploy_cli.plan import Plan, make_plan, specs
from deploy_cli.plan.schema import check

GPU = {"kind": "nvidia", "model": "L40S", "memory_gib": 44.98, "count": 4}


def told(
    models: list[dict[str, Any]] | None = None, devices: dict[str, Any] | None = None, **variables: Any
) -> list[Problem]:
    """Every problem and warning of a site of one host."""
    outcome = make_plan(site(models or [model("a")], {"gpu1": [{**GPU, **(devices or {})}]}, **variables))
    return outcome.warnings if isinstance(outcome, Plan) else outcome


def errors(*arguments: Any, **variables: Any) -> list[str]:
    return [p.what for p in told(*arguments, **variables) if p.severity == "error"]


@pytest.mark.parametrize(
    ("key", "value"), [("replicas", 2.0), ("tensor_parallel", 2.0), ("port", 9000.0), ("context_length", 1024.0)]
)
def test_a_number_with_a_point_is_not_a_whole_one(key: str, value: float) -> None:
    (what,) = errors([model("a", **{key: value})])
    assert f"`models[0].{key}`" in what


def test_nor_is_it_where_a_role_or_the_devices_want_one() -> None:
    assert errors(devices={"count": 4.0}) == ["`devices[0].count` is a number, not a whole number"]
    assert errors(vllm_port_base=8100.0) == ["`vllm_port_base` cannot be 8100.0"]


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        ("haproxy_port", "99999", False),
        ("haproxy_port", "0", False),
        ("haproxy_port", "9000", True),
        ("haproxy_port", "9" * 5000, False),
        ("haproxy_hold_seconds", "-5", False),
        ("haproxy_hold_seconds", "5", True),
        ("images_min_free_gib", "-1", False),
    ],
)
def test_a_number_written_as_text_keeps_to_the_range(name: str, value: str, fine: bool) -> None:
    options = {n: option for role in roles()[0].values() for n, option in role.items()}
    assert (list(check(value, specs.to_schema(name, options[name]), (name,))) == []) == fine


def test_a_text_where_only_a_number_counts_is_told_once() -> None:
    assert errors([model("a", memory_share="1.2")]) == ["`models[0].memory_share` is text, not a number"]


@pytest.mark.parametrize(
    "key",
    [
        "0123456789abcdef-secret\n",
        " 0123456789abcdef-secret",
        "0123456789abcdef\nsecret",
        "0123456789abcdef\tsecret",
        "0123456789abcdef\x00secret",
        "0123456789abcdef-sécret",
        " " * 20,
    ],
)
def test_a_key_that_no_client_could_send(key: str) -> None:
    (problem,) = told(haproxy_api_keys=[{"id": "a", "key": key}])
    assert "`haproxy_api_keys[0]`" in problem.what and "printf %s" in problem.hint
    assert "0123456789" not in problem.what + problem.hint
