"""What speaks against an engine that has just been started, and what is said of one that is good enough."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded

PLUGIN = loaded("playbooks/action_plugins/vllm_canary.py")
OLD = {"problems": [], "ttft_ms": 100.0, "tokens_per_second": 50.0}


def judged(before: dict[str, Any], slowdown: float = 3.0, floor: float = 0.0, **seen: Any) -> list[str]:
    found: list[str] = PLUGIN.objections({**OLD, **seen}, before, slowdown, floor)
    return found


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        ({"problems": ["HTTP 500: no"]}, "HTTP 500"),
        ({"ttft_ms": 301.0}, "first token comes after 301.0 ms"),
        ({"tokens_per_second": 16.0}, "16.0 tokens/s, before it were 50.0"),
        ({"tokens_per_second": 0.0}, "0.0 tokens/s, before it were 50.0"),
    ],
)
def test_a_wrong_or_slow_engine_is_refused(seen: dict[str, Any], word: str) -> None:
    (told,) = judged(OLD, **seen)
    assert word in told


def test_an_engine_is_good_enough_within_the_bounds() -> None:
    assert judged(OLD, ttft_ms=299.0, tokens_per_second=17.0) == []
    assert judged(OLD, floor=500.0, ttft_ms=450.0) == []


@pytest.mark.parametrize("before", [{}, {"skipped": True, "changed": False}])
def test_where_nothing_was_before_speed_is_no_objection(before: dict[str, Any]) -> None:
    assert judged(before, ttft_ms=9999.0, tokens_per_second=0.1) == []


def test_one_that_was_not_measured_is_judged_by_its_answers_alone() -> None:
    assert judged(OLD, ttft_ms=None, tokens_per_second=None) == []
    assert judged(OLD, ttft_ms=None, problems=["another one answered"]) == ["another one answered"]


def test_what_is_told_of_it() -> None:
    assert PLUGIN.verdict(OLD, {"ttft_ms": 90.0, "tokens_per_second": 55.0}, [])["msg"] == (
        "canary: first token after 100.0 ms, 50.0 tokens/s (before: 90.0 ms, 55.0 tokens/s)"
    )
    assert PLUGIN.verdict({**OLD, "ttft_ms": None}, {}, []) == {}
    refused = PLUGIN.verdict(OLD, {}, ["slow"])
    assert (refused["failed"], refused["msg"]) == (True, "the canary is refused: slow")
