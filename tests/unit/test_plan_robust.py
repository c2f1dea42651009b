"""Whatever stands in an inventory, the planner answers with a plan or with problems: never with an exception."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from plan_site import roles
from test_plan_placement import GPUS, KEYS, model, site

from deploy_cli.plan import Plan, SiteInput, Unresolved, make_plan
from deploy_cli.plan.schema import MODEL, SITE

GARBAGE: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        10**30,
        1.5,
        "",
        " ",
        "max",
        "x" * 5000,
        "{{ nope }}",
        "synthetic:",
        "a/b",
        "/",
        "..",
    ),
    *("\x00", "ü/ö", [], {}, [None], [[[]]], {"a": None}, {"": ""}, {1: 2}, {None: None}, {"name": []}, "'q'", "`t`"),
    *(Unresolved("'x' is undefined"), [Unresolved("'y' is undefined")], Unresolved("facts", facts=True), "2026-01-01"),
]
ROLE_VARIABLES = (
    *("haproxy_api_keys", "haproxy_port", "vllm_port_base", "vllm_port_range", "vllm_env", "images_vllm_version"),
    *("vllm_args", "acceptance_load_thresholds_by_model"),
    *("haproxy_bind_address", "jaeger_query_port", "docker_daemon_config"),
)
PLACES: list[tuple[str | int, ...]] = [
    *((name,) for name in (*SITE, *ROLE_VARIABLES)),
    *((name, 0) for name in ("models", "devices", "haproxy_api_keys")),
    *(("models", 0, key) for key in MODEL["properties"]),
    *(("models", 0, "engine_args", flag) for flag in ("max-num-seqs", "hf-overrides", "ignore-patterns")),
    *(("haproxy_api_keys", 0, key) for key in ("id", "key")),
    *(("devices", 0, key) for key in ("kind", "count")),
    ("models", 0, "aliases", 0),
    ("models", 0, "env", "A"),
]
ARGS = {"max-num-seqs": 8, "hf-overrides": {}, "ignore-patterns": ["x"]}
RICH = model("a", aliases=["b"], engine_args=ARGS, env={"A": "b"})


def put(place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The variables of a good host, with one value replaced."""
    variables: dict[str, Any] = copy.deepcopy({"models": [RICH], "devices": GPUS, "haproxy_api_keys": KEYS})
    holder: Any = variables
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return variables


def check(variables: dict[str, Any]) -> None:
    base = site([])
    found = SiteInput(
        inventory="dc.yml",
        site="dc",
        groups=base.groups,
        hosts={"gpu1": variables},
        specs=base.specs,
        defaults=base.defaults,
    )
    outcome = make_plan(found)
    if isinstance(outcome, Plan):
        json.dumps(outcome.as_dict())
    else:
        assert outcome
        for problem in outcome:
            assert problem.where
            assert problem.what
            assert problem.hint
            assert "Traceback" not in problem.what
            assert len(problem.what) < 500


def test_garbage_in_every_place() -> None:
    for place in PLACES:
        for value in GARBAGE:
            check(put(place, value))


def test_several_pieces_of_garbage_at_once() -> None:
    chance = random.Random(3)
    for _ in range(1500):
        variables = put(("models", 0, "name"), "a")
        for _ in range(chance.randint(2, 5)):
            place, value = chance.choice(PLACES), chance.choice(GARBAGE)
            try:
                holder: Any = variables
                for step in place[:-1]:
                    holder = holder[step]
                holder[place[-1]] = copy.deepcopy(value)
            except (TypeError, KeyError, IndexError):
                continue
        check(variables)


def test_no_site_at_all() -> None:
    outcome = make_plan(SiteInput(inventory="x.yml", site="", groups={}, hosts={}))
    assert isinstance(outcome, list)
    assert len(outcome) == 3


def test_a_checkout_without_its_role_defaults_says_so() -> None:
    good = site([RICH])
    found = SiteInput(
        inventory="dc.yml", site="dc", groups=good.groups, hosts=good.hosts, specs=roles()[0], defaults={}
    )
    outcome = make_plan(found)
    assert isinstance(outcome, list)
    assert any("no default for `vllm_port_base`" in p.what for p in outcome)
