"""What happens to the engines of one host: who makes room for whom, what is dropped, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded


@pytest.fixture(scope="module")
def role() -> Any:
    return loaded("roles/vllm/filter_plugins/vllm_changes.py")


@pytest.fixture(scope="module")
def gateway() -> Any:
    return loaded("roles/haproxy/filter_plugins/haproxy_text.py")


def spec(name: str, version: str, *devices: str, model: str = "m") -> dict[str, Any]:
    return {
        "name": f"vllm-{name}",
        "instance": name,
        "hash": version,
        "devices": list(devices),
        "model": model,
        "instead_of": [],
        "served_names": [model],
    }


def container(
    name: str, version: str, *devices: str, instead_of: str = "", state: str = "running", model: str = "m"
) -> dict[str, Any]:
    """As Docker lists one; its id says what it is."""
    labels = {
        "deployctl.instance": name.removesuffix("-previous"),
        "deployctl.model": model,
        "deployctl.names": model,
        "deployctl.pool": model,
        "deployctl.address": "127.0.0.1:9000",
        "deployctl.devices": ",".join(devices),
        "deployctl.spec": version,
    }
    if instead_of:
        labels["deployctl.instead_of"] = instead_of
    return {"Id": f"{name}@{version}", "Names": [f"/vllm-{name}"], "Labels": labels, "State": state}


def aside(name: str, version: str, *devices: str, **more: Any) -> dict[str, Any]:
    return container(f"{name}-previous", version, *devices, state="exited", **more)


def changes(role: Any, wanted: list[dict[str, Any]], *there: dict[str, Any], **more: Any) -> Any:
    return role.vllm_changes(wanted, role.vllm_have(list(there)), **more)


def restores(role: Any, *there: dict[str, Any]) -> dict[str, list[str]]:
    found = role.vllm_restores(role.vllm_have(list(there)))
    return {one["name"]: [new["name"] for new in one["replaced_by"]] for one in found}


def test_a_changed_one_makes_room_for_itself_and_the_first_is_the_canary(role: Any) -> None:
    there = [container("m-0", "1", "g0"), container("m-1", "1", "g1"), container("m-2", "2", "g2")]
    found = changes(role, [spec("m-0", "2", "g0"), spec("m-1", "2", "g1"), spec("m-2", "2", "g2")], *there)
    assert [(m["new"]["name"], m["old"], m["dropped"], m["canary"]) for m in found["moves"]] == [
        ("vllm-m-0", ["vllm-m-0"], [], True),
        ("vllm-m-1", ["vllm-m-1"], [], False),
    ]
    assert found["moves"][0]["new"]["instead_of"] == ["m-0@1"]
    assert [one["name"] for one in found["kept"]] == ["vllm-m-2"]


def test_one_that_nobody_accepted_is_dropped_and_the_accepted_one_stays_aside(role: Any) -> None:
    there = [container("m-0", "2", "g0", instead_of="m-0-previous@1"), aside("m-0", "1", "g0")]
    found = changes(role, [spec("m-0", "3", "g0")], *there)
    (move,) = found["moves"]
    assert (move["old"], move["dropped"]) == (["vllm-m-0"], ["vllm-m-0"])
    assert move["new"]["instead_of"] == ["m-0-previous@1"]  # it is what comes back when the third one fails


def test_the_same_under_other_names(role: Any) -> None:
    there = [container("b-0", "1", "g0", instead_of="a-0-previous@1", model="b"), aside("a-0", "1", "g0", model="a")]
    (move,) = changes(role, [spec("c-0", "1", "g0", model="c")], *there)["moves"]
    assert (move["old"], move["dropped"]) == (["vllm-b-0"], ["vllm-b-0"])
    after = [container("c-0", "1", "g0", instead_of=",".join(move["new"]["instead_of"]), model="c"), there[1]]
    assert restores(role, *after) == {"vllm-a-0": ["vllm-c-0"]}


def test_neighbours_on_a_gpu_are_left_alone(role: Any) -> None:
    """Several instances share a GPU: one of them comes back, and the other ones serve on."""
    there = [
        container("m-0", "2", "g0", instead_of="m-0-previous@1"),
        container("m-1", "1", "g0"),
        aside("m-0", "1", "g0"),
    ]
    assert restores(role, *there) == {"vllm-m-0": ["vllm-m-0"]}
    moves = changes(role, [spec("m-0", "3", "g0"), spec("m-1", "3", "g0")], *there)["moves"]
    assert {m["new"]["name"]: m["dropped"] for m in moves} == {"vllm-m-0": ["vllm-m-0"], "vllm-m-1": []}


def test_one_over_two_gpus_gives_way_to_two(role: Any) -> None:
    moves = changes(
        role, [spec("b-0", "1", "g0", model="b"), spec("b-1", "1", "g1", model="b")], container("a-0", "1", "g0", "g1")
    )["moves"]
    assert [m["old"] for m in moves] == [["vllm-a-0"], []]  # the second one's GPU is not free before
    assert [m["new"]["instead_of"] for m in moves] == [["a-0@1"], ["a-0@1"]]
    there = [container(f"b-{n}", "1", f"g{n}", instead_of="a-0-previous@1", model="b") for n in (0, 1)]
    assert restores(role, *there, aside("a-0", "1", "g0", "g1")) == {"vllm-a-0": ["vllm-b-0", "vllm-b-1"]}


def heir(name: str, *devices: str) -> dict[str, Any]:
    return {**spec(name, "1", *devices, model="b"), "served_names": ["b", "alias"]}


def known_as(there: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**there, "Labels": {**there["Labels"], "deployctl.names": "\n".join(names)}}


def test_who_takes_over_a_name_on_free_devices_is_judged_first_and_goes_again(role: Any, gateway: Any) -> None:
    old = known_as(container("a-0", "1", "g1", model="a"), "a", "alias")
    found = changes(role, [heir("b-0", "g0")], old)
    (move,) = found["moves"]
    assert (move["old"], move["canary"], move["newcomer"], found["start"]) == ([], True, True, [])
    assert found["surplus"] == [{"name": "vllm-a-0", "dropped": False}]  # it serves until then
    assert gateway.haproxy_newcomers(found["moves"], role.vllm_have([old])) == ["b-0"]
    assert role.vllm_gaps([role.vllm_have([old])], [found["moves"]]) == []
    new = container("b-0", "1", "g0", instead_of=",".join(move["new"]["instead_of"]), model="b")
    waiting = role.vllm_waiting_heirs(role.vllm_have([old, new]))
    assert [one["name"] for one in waiting] == ["vllm-b-0"]  # goes when it fails, and the old one never went
    (again,) = changes(role, [heir("b-0", "g0")], old, new)["moves"]
    assert again["unjudged"]  # by a run that was stopped
    kept = {**old, "Names": ["/vllm-a-0-previous"], "State": "exited"}
    assert role.vllm_waiting_heirs(role.vllm_have([kept, new])) == []
    (back,) = role.vllm_restores(role.vllm_have([new, kept]))
    # It serves until the old one does.
    assert (back["replaced_by"], [one["name"] for one in back["beside"]]) == ([], ["vllm-b-0"])


def test_each_of_two_makes_way_for_one_of_two_again(role: Any) -> None:
    """Nobody goes before the one whose place it has comes back, or all would be away at once."""
    there = [known_as(container(f"a-{n}", "1", f"g{n}", model="a"), "a", "alias") for n in (0, 1)]
    moves = changes(role, [heir("b-0", "g0"), heir("b-1", "g1")], *there)["moves"]
    assert [m["new"]["instead_of"] for m in moves] == [["a-0@1"], ["a-1@1"]]


def test_heirs_beside_go_with_the_last_that_comes_back(role: Any) -> None:
    there = [container(f"b-{n}", "1", f"g{n}", instead_of="a-0@1,a-1@1", model="b") for n in (2, 3)]
    there += [{**aside(f"a-{n}", "1", f"g{n}", model="a"), "Id": f"a-{n}@1"} for n in (0, 1)]
    found = role.vllm_restores(role.vllm_have(there))
    assert [[one["name"] for one in old["beside"]] for old in found] == [[], ["vllm-b-2", "vllm-b-3"]]


def test_what_leaves_without_an_heir_comes_back_beside_the_others(role: Any) -> None:
    old = container("a-0", "1", "g1", model="a")
    found = changes(role, [spec("b-0", "1", "g0", model="b")], old)
    assert ([one["name"] for one in found["start"]], found["moves"]) == (["vllm-b-0"], [])
    assert restores(role, container("b-0", "1", "g0", model="b"), aside("a-0", "1", "g1", model="a")) == {
        "vllm-a-0": []
    }


def test_who_gets_the_devices_of_one_that_may_come_back_goes_with_it(role: Any) -> None:
    gone = aside("a-0", "1", "g0", model="a")  # its run ended before the verdict
    (start,) = changes(role, [spec("c-0", "1", "g0", model="c")], gone)["start"]
    there = container("c-0", "1", "g0", instead_of=",".join(start["instead_of"]), model="c")
    assert restores(role, there, gone) == {"vllm-a-0": ["vllm-c-0"]}
    (other,) = changes(role, [spec("c-0", "1", "g1", model="c")], gone)["start"]
    assert other["instead_of"] == []


def test_surplus_that_nobody_accepted_is_dropped(role: Any) -> None:
    there = [container("m-0", "2", "g0", instead_of="m-0-previous@1"), aside("m-0", "1", "g0")]
    assert changes(role, [], *there)["surplus"] == [{"name": "vllm-m-0", "dropped": True}]


def test_one_that_stands_for_several_goes_with_the_first_of_them(role: Any) -> None:
    """The name of the new one is the old one's again by then."""
    there = [
        container("m-0", "2", "g0", instead_of="m-0-previous@1,a-0-previous@1"),
        aside("m-0", "1", "g0"),
        aside("a-0", "1", "g1", model="a"),
    ]
    assert restores(role, *there) == {"vllm-m-0": ["vllm-m-0"], "vllm-a-0": []}


def test_a_canary_that_a_stopped_run_left_is_judged_before_the_rest(role: Any, gateway: Any) -> None:
    there = [
        container("m-0", "2", "g0", instead_of="m-0-previous@1"),
        aside("m-0", "1", "g0"),
        container("m-1", "1", "g1"),
    ]
    found = changes(role, [spec("m-0", "2", "g0"), spec("m-1", "2", "g1")], *there)
    first, second = found["moves"]
    assert (first["new"]["name"], first["old"], first["unjudged"], first["canary"]) == ("vllm-m-0", [], True, True)
    assert first["new"]["instead_of"] == ["m-0-previous@1"]  # its label stays as it is: it is not made anew
    assert (second["new"]["name"], second["canary"]) == ("vllm-m-1", False)
    assert found["kept"] == []
    have = role.vllm_have(there)
    assert gateway.haproxy_newcomers(found["moves"], have) == ["m-0"]  # clients do not reach it before
    alone = [first]
    assert gateway.haproxy_newcomers(alone, [c for c in have if c["instance"] == "m-0"]) == []  # nobody else serves


def test_a_roll_that_went_past_its_canary_goes_on(role: Any) -> None:
    there = [
        container("m-0", "2", "g0", instead_of="m-0-previous@1"),
        aside("m-0", "1", "g0"),
        container("m-1", "2", "g1", instead_of="m-1-previous@1"),
        aside("m-1", "1", "g1"),
    ]
    found = changes(role, [spec("m-0", "2", "g0"), spec("m-1", "2", "g1")], *there)
    assert found["moves"] == []
    assert len(found["kept"]) == len(found["unfinished"]) == 2


def test_what_comes_back_is_known_to_the_gateway_under_one_name(role: Any) -> None:
    have = role.vllm_have(
        [container("m-0", "2", "g0"), aside("m-0", "1", "g0"), container("b-0", "1", "g1"), aside("a-0", "1", "g1")]
    )
    back = role.vllm_coming_back(role.vllm_restores(have), ["m-0", "b-0"])
    assert [one["name"] for one in back] == ["a-0"]
    leaving = role.vllm_leaving(role.vllm_have([container("a-0", "1", "g0"), container("m-0", "1", "g1")]), ["m-0"])
    assert [one["name"] for one in leaving] == ["a-0"]
    assert set(leaving[0]) == {"name", "pool", "served_names", "address", "port"}


def test_one_that_is_to_listen_elsewhere_is_a_server_of_its_own(role: Any, gateway: Any) -> None:
    planned = [{"name": "m-0", "publish_address": "127.0.0.1", "port": 9100}]
    have = role.vllm_have([container("m-0", "1", "g0")], planned)
    assert [one["server"] for one in have] == ["m-0-before"]
    assert [one["name"] for one in role.vllm_leaving(have, ["m-0"])] == ["m-0-before"]
    found = role.vllm_changes([spec("m-0", "2", "g0")], have)
    assert gateway.haproxy_newcomers(found["moves"], have) == ["m-0"]
    old = role.vllm_have([aside("m-0", "1", "g0")], planned)
    assert [one["name"] for one in role.vllm_coming_back(role.vllm_restores(old), ["m-0"])] == ["m-0-before"]
    same = role.vllm_have([container("m-0", "1", "g0")], [{**planned[0], "port": 9000}])
    assert [one["server"] for one in same] == ["m-0"]
    assert gateway.haproxy_newcomers(role.vllm_changes([spec("m-0", "2", "g0")], same)["moves"], same) == []


def test_a_further_replica_of_a_model_that_changes_is_judged_and_goes_again(role: Any, gateway: Any) -> None:
    there = [container("m-0", "1", "g0"), container("m-1", "1", "g1")]
    wanted = [spec(f"m-{n}", "2", f"g{n}") for n in range(3)]
    found = changes(role, wanted, *there)
    assert found["start"] == []
    # Nobody has to stop for it, and it is measured against one that serves.
    assert [(m["new"]["name"], m["old"], m["canary"], m["compare"], m["serves"]) for m in found["moves"]] == [
        ("vllm-m-2", [], True, "vllm-m-0", False),
        ("vllm-m-0", ["vllm-m-0"], False, "vllm-m-0", True),
        ("vllm-m-1", ["vllm-m-1"], False, "vllm-m-1", True),
    ]
    have = role.vllm_have(there)
    assert gateway.haproxy_newcomers(found["moves"], have) == ["m-2"]
    new = container("m-2", "2", "g2", instead_of=",".join(found["moves"][0]["new"]["instead_of"]))
    # Refused as the canary: the others never went.
    assert [one["name"] for one in role.vllm_waiting_heirs(role.vllm_have([*there, new]))] == ["vllm-m-2"]
    # A run that was stopped there: it is judged again.
    assert [m["unjudged"] for m in changes(role, wanted, *there, new)["moves"]] == [True, False, False]
    # Rejected in the end: it serves until the last of them does.
    rolled = [container(f"m-{n}", "2", f"g{n}", instead_of=f"m-{n}@1") for n in (0, 1)]
    kept = [{**aside(f"m-{n}", "1", f"g{n}"), "Id": f"m-{n}@1"} for n in (0, 1)]
    back = role.vllm_restores(role.vllm_have([*rolled, new, *kept]))
    assert [[c["name"] for c in old["replaced_by"]] for old in back] == [["vllm-m-0"], ["vllm-m-1"]]
    assert [[c["name"] for c in old["beside"]] for old in back] == [[], ["vllm-m-2"]]


def test_a_further_replica_of_a_model_that_stays_starts_at_once(role: Any) -> None:
    found = changes(role, [spec(f"m-{n}", "1", f"g{n}") for n in range(2)], container("m-0", "1", "g0"))
    assert ([one["name"] for one in found["start"]], found["moves"]) == (["vllm-m-1"], [])


def test_a_further_replica_starts_at_once_where_nobody_serves(role: Any) -> None:
    wanted = [spec(f"m-{n}", "2", f"g{n}") for n in range(2)]
    assert [s["name"] for s in changes(role, wanted, container("m-0", "1", "g0", state="exited"))["start"]] == [
        "vllm-m-1"
    ]


def test_one_beside_its_successor_serves_until_it_is_back(role: Any) -> None:
    """Two replicas on one device: the new one of them need not go before the old one can start."""
    new = [container("m-0", "2", "g0", instead_of="m-0@1"), container("m-1", "2", "g0", instead_of="m-0@1")]
    (back,) = role.vllm_restores(role.vllm_have([*new, {**aside("m-0", "1", "g0"), "Id": "m-0@1"}]))
    assert [c["name"] for c in back["replaced_by"]] == ["vllm-m-0"]
    assert [c["name"] for c in back["beside"]] == ["vllm-m-1"]


def test_two_gpus_per_replica_become_one(role: Any, gateway: Any) -> None:
    there = [container("m-0", "1", "g0", "g1")]
    found = changes(role, [spec("m-0", "2", "g0"), spec("m-1", "2", "g1")], *there)
    assert found["start"] == []
    assert [(m["new"]["name"], m["old"]) for m in found["moves"]] == [("vllm-m-0", ["vllm-m-0"]), ("vllm-m-1", [])]
    assert gateway.haproxy_newcomers(found["moves"], role.vllm_have(there)) == ["m-1"]
    rolled = [container(f"m-{n}", "2", f"g{n}", instead_of="m-0@1") for n in (0, 1)]
    (back,) = role.vllm_restores(role.vllm_have([*rolled, {**aside("m-0", "1", "g0", "g1"), "Id": "m-0@1"}]))
    assert [c["name"] for c in back["replaced_by"]] == ["vllm-m-0", "vllm-m-1"]  # both sit on its GPUs


def test_one_gpu_per_replica_becomes_two(role: Any, gateway: Any) -> None:
    there = [container(f"m-{n}", "1", f"g{n}") for n in range(4)]
    found = changes(role, [spec("m-0", "2", "g0", "g1"), spec("m-1", "2", "g2", "g3")], *there)
    assert [(m["new"]["name"], m["old"]) for m in found["moves"]] == [
        ("vllm-m-0", ["vllm-m-0", "vllm-m-1"]),
        ("vllm-m-1", ["vllm-m-2", "vllm-m-3"]),
    ]
    assert (found["start"], found["surplus"]) == ([], [])
    # The server of the second is the first one's neighbour until then, and clients reach it.
    assert gateway.haproxy_newcomers(found["moves"], role.vllm_have(there)) == []
    assert role.vllm_gaps([role.vllm_have(there)], [found["moves"]]) == []


def test_replicas_that_change_places_make_room_for_each_other(role: Any) -> None:
    there = [container("m-0", "1", "g0"), container("m-1", "1", "g1")]
    moves = changes(role, [spec("m-0", "2", "g1"), spec("m-1", "2", "g0")], *there)["moves"]
    assert [m["old"] for m in moves] == [["vllm-m-0", "vllm-m-1"], []]
    assert moves[1]["new"]["instead_of"] == ["m-1@1", "m-0@1"]
    assert role.vllm_gaps([role.vllm_have(there)], [moves]) == ["m"]


def test_one_that_generates_nothing_is_replaced_first_and_is_no_measure(role: Any) -> None:
    there = [container("m-0", "1", "g0"), container("m-1", "1", "g1")]
    wanted = [spec("m-0", "2", "g0"), spec("m-1", "2", "g1")]
    asked = changes(role, wanted, *there)["asked"]
    assert [one["name"] for one in asked] == ["vllm-m-0", "vllm-m-1"]
    assert set(asked[0]) == {"name", "url", "served_names"}
    moves = changes(role, wanted, *there, silent=["vllm-m-1"])["moves"]
    assert [(m["new"]["name"], m["canary"], m["compare"], m["serves"]) for m in moves] == [
        ("vllm-m-1", True, "vllm-m-0", False),
        ("vllm-m-0", False, "vllm-m-0", True),
    ]


def test_names_that_only_an_emptied_host_answers_for_are_away(role: Any) -> None:
    one = known_as(container("a-0", "1", "g0"), "a", "alias")
    both = known_as(container("b-0", "1", "g1", model="b"), "b")
    listed = {"h1": [one, both], "h2": [known_as(container("b-1", "1", "g0", model="b"), "b")], "h3": []}
    assert role.vllm_away(listed, ["h1"]) == ["a", "alias"]
    # One after another: b always has a host.
    assert role.vllm_away(listed, ["h1", "h2"]) == ["a", "alias"]
    assert role.vllm_away({"h1": listed["h1"]}, ["h1"]) == ["a", "alias", "b"]
    stopped = {"h1": listed["h1"], "h2": [{**listed["h2"][0], "State": "exited"}]}
    assert role.vllm_away(stopped, ["h1"]) == ["a", "alias", "b"]
    assert role.vllm_away(listed, ["h3", "front"]) == []


def turns(role: Any, wanted: list[dict[str, Any]], there: list[Any], others: list[Any], gates: list[Any]) -> Any:
    have = role.vllm_have(there)
    moves = role.vllm_changes(wanted, have)["moves"]
    return role.vllm_turns(moves, have, have + role.vllm_have(others), gates, "h1")


def test_a_turn_holds_all_that_its_tasks_ask_for(role: Any) -> None:
    there = [container("m-0", "1", "g0"), container("m-1", "1", "g1")]
    gates = [{"host": f"front{n}", "probe": f"/probe{n}", "socket": f"/admin{n}", "config": "c"} for n in (1, 2)]
    first, second = turns(role, [spec("m-0", "2", "g0"), spec("m-1", "2", "g1")], there, [], gates)
    assert [first["title"], second["title"]] == ["m-0 (1/2, canary)", "m-1 (2/2)"]
    assert [first["servers"], second["servers"]] == [["m-0"], ["m-1"]]
    # Only the canary is measured, and the old one before it.
    assert [first["compared"]["server"], second["compared"]] == ["m-0", {}]
    assert first["gateways"] == gates
    assert first["through"] == {"host": "front1", "socket": "/probe1"}


@pytest.mark.parametrize(
    ("others", "serve"),
    [
        ([], False),
        ([container("m-1", "1", "g1")], True),
        ([container("m-1", "1", "g1", state="exited")], False),
        ([aside("m-1", "1", "g1")], False),
        ([container("n-0", "1", "g1", model="n")], False),
    ],
)
def test_a_turn_knows_whether_other_replicas_serve(role: Any, others: list[Any], *, serve: bool) -> None:
    (turn,) = turns(role, [spec("m-0", "2", "g0")], [container("m-0", "1", "g0")], others, [])
    assert turn["others"] is serve
    # Nobody but the engine's own host can ask where there is no gateway.
    assert turn["through"] == {"host": "h1", "socket": ""}
