"""Changes that are rejected, a model for a model under one alias, and a model's only replica, while clients ask."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from load import Load
from stack import ids, shipped
from trials import Faults, both_up, change

STRICT = "acceptance_load_ttft_p95_ms_max=0.001"
SECOND = {
    "name": "second",
    "source": "synthetic:tiny-chat-long",
    "tool_call_parser": "hermes",
    "aliases": ["chat-default"],
}


def health(faults: Faults) -> int:
    """What the gateway says of itself to whoever stands before it."""
    base = faults.site.client_env()["OPENAI_BASE_URL"]
    return requests.get(base.removesuffix("/v1") + "/health", timeout=5).status_code


def test_a_rejected_change_is_taken_back(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    before = ids(faults.engine)
    faults.site.write_models(shipped(context_length=1536))
    with change(faults, "acceptance rejects a change") as made:
        printed = made.strike(lambda: faults.site.deployctl("up", "-e", STRICT, code=4))
        made.until(both_up)
    assert "REJECTED" in printed
    assert "taken back" in printed
    assert ids(faults.engine) == before
    assert "rejected" in faults.site.deployctl("history").splitlines()[1]
    faults.site.write_models(shipped())


def test_instances_get_another_port(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    faults.site.write_models(shipped(port=18950))
    with change(faults, "instances get another port") as made:
        assert "ACCEPTED" in made.strike(lambda: faults.site.deployctl("up"))
        made.until(both_up)
    faults.site.write_models(shipped())
    with change(faults, "another port is rejected") as made:
        assert "taken back" in made.strike(lambda: faults.site.deployctl("up", "-e", STRICT, code=4))
    faults.site.deployctl("up")


def test_another_model_takes_over_the_alias(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    env = faults.site.client_env()
    faults.site.write_models([{**SECOND, "replicas": 2}])
    old_name = Load(env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"], "tiny-chat", chats=1, pause=0.5)
    with change(faults, "model for a model under one alias") as made, old_name:
        assert "ACCEPTED" in made.strike(lambda: faults.site.deployctl("swap"))
    assert set(ids(faults.engine)) == {"vllm-second-0", "vllm-second-1"}
    # Asked by its own name, the old model answers until it is gone, and is unknown from then on.
    assert old_name.chats.sent > len(old_name.chats.failed) > 0
    assert all("404" in wrong for wrong in old_name.chats.failed), old_name.chats.failed[:3]
    with change(faults, "rollback to the model before") as made:
        assert "ACCEPTED" in made.strike(lambda: faults.site.deployctl("rollback"))
        made.until(both_up)
    assert set(ids(faults.engine)) == {"vllm-tiny-chat-0", "vllm-tiny-chat-1"}
    faults.site.write_models(shipped())


def test_a_model_that_is_rejected_gives_the_alias_back(faults: Faults) -> None:
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    before = ids(faults.engine)
    faults.site.write_models([{**SECOND, "replicas": 2}])
    with change(faults, "another model is rejected") as made:
        assert "taken back" in made.strike(lambda: faults.site.deployctl("up", "-e", STRICT, code=4))
        made.until(both_up)
    assert ids(faults.engine) == before
    assert health(faults) == 200
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
    assert ids(faults.engine) == before


def test_a_model_moves_in_beside_the_old_one_where_there_is_room(faults: Faults) -> None:
    faults.site.write_models(shipped(replicas=1))
    faults.site.deployctl("up")
    before = ids(faults.engine)
    faults.site.write_models([{**SECOND, "replicas": 1}])
    with change(faults, "a model beside the old one is rejected") as made:
        printed = made.strike(lambda: faults.site.deployctl("up", "-e", STRICT, code=4))
    assert "taken back" in printed
    assert ids(faults.engine) == before
    assert health(faults) == 200
    with change(faults, "a model moves in beside the old one") as made:
        printed = made.strike(lambda: faults.site.deployctl("up"))
    assert "only replica" not in printed
    assert "canary" in printed
    assert set(ids(faults.engine)) == {"vllm-second-0"}
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


@pytest.mark.parametrize("found", ["accepted", "never up"])
def test_a_change_repairs_a_model_that_has_no_engine(faults: Faults, found: str) -> None:
    """Nothing answers, so nothing is asked of the gateway before the change is made."""

    def repaired(**settings: Any) -> None:
        faults.site.write_models(shipped(replicas=1, **settings))
        assert "ACCEPTED" in faults.site.deployctl("up")
        assert health(faults) == 200

    if found == "accepted":
        repaired()
        faults.engine.containers.get("vllm-tiny-chat-0").stop()
    else:
        faults.site.deployctl("down")
        faults.site.write_models(shipped(replicas=1, engine_args={"quantization": "awq"}))
        faults.site.deployctl("up", code=3)
    repaired(context_length=1024)
    faults.site.write_models(shipped())
    faults.site.deployctl("up")


def test_an_only_replica_is_held_or_refused(faults: Faults) -> None:
    faults.site.write_models(shipped(replicas=1))
    faults.site.deployctl("up")
    before = ids(faults.engine)
    faults.site.write_models(shipped(replicas=1, context_length=1024))
    printed = faults.site.deployctl("up", "-e", "haproxy_hold_seconds=0", code=3)
    assert "--allow-gap" in printed
    assert ids(faults.engine) == before
    with change(faults, "an only replica is replaced: requests wait", streams=0) as made:
        printed = made.strike(lambda: faults.site.deployctl("up"))
    assert "the only replica is replaced" in printed
    assert made.load.chats.slowest > 3
    faults.site.write_models(shipped())
    faults.site.deployctl("up")
