"""States: which one a rollback takes, what it restores, what differs, and that no secret gets into one."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_cli import history, states
from deploy_cli.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(path).stem] = module
    spec.loader.exec_module(module)
    return module


def state(number: int, verdict: str = "accepted", model: str = "tiny-chat", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": f"2026112{number}T000000-up",
        "at": f"2026-11-2{number} 00:00:00 UTC",
        "verdict": verdict,
        "failed_checks": [],
        "groups": {"serving": ["h1"], "gateway": ["h1"], "telemetry": ["h1"]},
        "settings": {"h1": {"models": [{"name": model}], "vllm_args": []}},
        "models": [{"name": model, "revision": None}],
        "instances": [{"name": f"{model}-0", "env": {}, "port": 1}],
        "images": [{"name": "haproxy", "reference": "haproxy:3.0", "digest": "", "ids": {"h1": "sha256:" + "a" * 64}}],
        "keys": {"h1": ["alice"]},
        "gateway": {"h1": "c0ffee"},
        **more,
    }
    return made | {"content": states.content(made)}


def test_the_last_accepted_state_is_taken_when_the_hosts_are_in_none() -> None:
    kept = [state(3, "rejected", "c"), state(2, model="b"), state(1)]
    assert states.choose(kept, "", None)["id"] == kept[1]["id"]


def test_the_one_before_is_taken_when_the_hosts_are_in_the_last() -> None:
    kept = [state(3, model="b"), state(2, model="b"), state(1)]
    assert states.choose(kept, "", kept[0]["id"])["id"] == kept[2]["id"]


def test_the_last_accepted_state_is_taken_when_something_came_after_it() -> None:
    """The hosts are as in it, since what was rejected was taken back: it is not the one before it that is meant."""
    kept = [state(3, "rejected", "c"), state(2, model="b"), state(1)]
    assert states.choose(kept, "", kept[1]["id"])["id"] == kept[1]["id"]


def test_a_state_can_be_named_by_the_beginning_of_its_id() -> None:
    kept = [state(3, model="b"), state(2), state(1)]
    assert states.choose(kept, "20261122", None) == kept[1]


@pytest.mark.parametrize(
    ("kept", "wanted", "current", "says"),
    [
        ([], "", None, "no accepted state is recorded"),
        ([state(1, "rejected")], "", None, "no accepted state is recorded"),
        ([state(1)], "", state(1)["id"], "in its only accepted state"),
        ([state(2), state(1)], "2026112", None, "more than one state"),
        ([state(2)], "nobody", None, "no state is called nobody"),
        ([state(2, "rejected"), state(1)], "20261122", None, "was rejected"),
    ],
)
def test_what_cannot_be_taken_is_refused(kept: list[Any], wanted: str, current: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        states.choose(kept, wanted, current)


def test_states_of_several_hosts_are_one_list() -> None:
    assert [s["id"][:8] for s in states.merged([state(1), state(2), state(1)])] == ["20261122", "20261121"]


def test_content_is_what_counts_not_when_or_by_which_name_of_an_image() -> None:
    one, other = state(1), state(2)
    assert one["content"] == other["content"]
    other["settings"]["h1"]["images_overrides"] = [{"name": "haproxy", "mode": "pull"}]
    assert states.content(other) == one["content"]
    other["images"][0]["ids"] = {"h1": "sha256:" + "b" * 64}
    assert states.content(other) != one["content"]


def test_secrets_are_what_the_specs_call_so() -> None:
    specs = {"r": {"r_key": {"no_log": True}, "r_list": {"options": {"key": {"no_log": True}}}, "r_plain": {}}}
    assert states.secret_names(specs) == {"r_key", "r_list"}
    values = {"r_key": "s", "r_list": [{"key": "s"}], "r_plain": 1, "ansible_host": "h", "late": object()}
    assert states.keep(values, states.secret_names(specs)) == {"r_plain": 1}


def test_the_roles_own_secrets_are_known() -> None:
    specs = {
        file.parts[-3]: {
            name: option
            for entry in yaml.safe_load(file.read_text())["argument_specs"].values()
            for name, option in (entry.get("options") or {}).items()
        }
        for file in (ROOT / "roles").glob("*/meta/argument_specs.yml")
    }
    assert {"haproxy_api_keys", "model_store_hub_token", "acceptance_api_key"} <= states.secret_names(specs)


def test_what_the_state_does_not_know_goes_back_to_the_default() -> None:
    kept = state(1)
    recorded, raw = states.settings_for(kept, "h1", ["vllm_args", "vllm_new", "mine"], {"vllm_new": "{{ x }}"})
    assert recorded == kept["settings"]["h1"]
    assert raw == {"vllm_new": "{{ x }}"}


def test_hosts_that_changed_groups_are_told() -> None:
    now = {"serving": ["h2"], "gateway": ["h1"], "telemetry": ["h1"]}
    found = states.misfits(state(1), now, "inventory")
    assert [p.what for p in found] == [f"group `serving` holds h2, in {state(1)['id']} it held h1"]
    assert states.misfits(state(1), state(1)["groups"], "inventory") == []


def test_differences_say_what_and_never_a_value_of_env() -> None:
    before, after = state(1), copy.deepcopy(state(2))
    assert states.differences(before, after) == []
    after["images"][0]["reference"] = "haproxy:3.2"
    after["keys"]["h1"] = ["alice", "bob"]
    after["models"].append({"name": "second"})
    after["instances"][0] |= {"env": {"TOKEN": "hidden"}, "port": 2}
    after["settings"]["h1"]["vllm_args"] = ["--x"]
    told = states.differences(before, after)
    assert told == [
        "image haproxy: reference haproxy:3.0 -> haproxy:3.2",
        'key h1: ["alice"] -> ["alice", "bob"]',
        "model second: new",
        "instance tiny-chat-0: env changed",
        "instance tiny-chat-0: port 1 -> 2",
        'h1: vllm_args: [] -> ["--x"]',
    ]


def test_history_marks_where_the_hosts_are_and_says_what_changed() -> None:
    kept = [state(2, model="b"), state(1)]
    document = history.document(kept, kept[0]["id"])
    assert [row["current"] for row in document["states"]] == [True, False]
    printed = history.lines(document)
    assert printed[1].startswith("* 20261122") and "model tiny-chat: gone (+" in printed[1]
    assert printed[2].startswith("  20261121") and printed[2].endswith("tiny-chat")
    assert history.lines({**document, "differences": history.compare(kept, "20261122", "20261122")}) == [
        "no difference"
    ]


def test_hosts_are_in_a_state_only_when_all_look_as_they_did() -> None:
    good = {"look": {"a": 1}, "recorded": {"run": "r1", "look": {"a": 1}}}
    assert history.current({"h1": good, "h2": good}) == "r1"
    assert history.current({"h1": good, "h2": {**good, "look": {"a": 2}}}) is None
    assert history.current({}) is None


def test_texts_that_look_like_templates_stay_what_they_are(tmp_path: Path) -> None:
    module = load("playbooks/action_plugins/deployctl_rollback.py")
    values = {"chat": "{% for m in messages %}{{ m }}{% endfor %}", "deep": [{"x": "{{ y }}"}], "plain": "a: b"}
    written = yaml.dump(module.marked(values), Dumper=module.Dumper)
    assert written.count("!unsafe") == 2
    from ansible.parsing.dataloader import DataLoader

    file = tmp_path / "h.yml"
    file.write_text(written)
    assert json.loads(json.dumps(DataLoader().load_from_file(str(file)))) == values


def test_an_image_that_is_still_there_is_taken_by_its_id() -> None:
    module = load("playbooks/action_plugins/deployctl_rollback.py")
    kept, there = state(1), ["sha256:" + "a" * 64]
    overrides, tags = module.accepted_images(kept, "h1", {}, there)
    assert overrides == [{"name": "haproxy", "reference": "haproxy:3.0", "id": there[0]}]
    assert tags == [{"id": there[0], "reference": "haproxy:3.0"}]
    overrides, tags = module.accepted_images(
        kept, "h1", {"images_overrides": [{"name": "haproxy", "mode": "build"}]}, []
    )
    assert (overrides, tags) == ([{"name": "haproxy", "mode": "build", "reference": "haproxy:3.0"}], [])


def test_what_plays_set_is_no_setting() -> None:
    module = load("playbooks/action_plugins/deployctl_state.py")
    taken = module.set_by_plays(ROOT)
    assert {"vllm_instances", "haproxy_models", "images_names", "acceptance_plan"} <= taken
    defaults = {"vllm_instances": [], "images_vllm_version": "1", "images_catalogue": ["{{ images_vllm_version }}"]}
    assert module.constants(defaults, set(defaults), ROOT) == {"images_vllm_version": "1"}


def test_the_last_state_is_the_last_whatever_the_clock_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("playbooks/library/site_states.py")
    hosts = []
    for host, seen in (("h1", (1, 2, 3)), ("h2", (3,))):  # h2 came later
        monkeypatch.setattr(module, "FOLDER", tmp_path / host)
        for number in seen:
            # Who made the second one was an hour ahead.
            module.save({**state(number), "at": f"2026-11-21 1{9 if number == 2 else number}:00:00 UTC"}, keep=50)
        assert [kept["id"] for kept in module.read()] == [state(number)["id"] for number in reversed(seen)]
        hosts += module.read()
    assert [kept["id"] for kept in states.merged(hosts)] == [state(number)["id"] for number in (3, 2, 1)]


def test_a_host_keeps_states_whole_and_drops_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("playbooks/library/site_states.py")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "states")
    for number in range(1, 8):
        module.save(state(number, "accepted" if number < 3 else "rejected"), keep=3)
    (tmp_path / "states/broken.json").write_text("{")
    ids = [kept["id"][6:8] for kept in module.read()]
    assert ids == ["27", "26", "25", "22", "21"]  # the accepted ones stay
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "states").glob("2*.json")} == {0o600}
