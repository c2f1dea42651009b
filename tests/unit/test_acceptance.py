"""The verdict: everything well is accepted, and every single check has been seen to fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import acceptance_sample as sample
import pytest

from deploy_cli.bench import suites
from deploy_cli.bench.acceptance import Measurements, Thresholds, judge

Spoil = Callable[[dict[str, Any]], Any]


def judged(measured: Measurements, limits: Thresholds | None = None) -> dict[str, Any]:
    return judge(sample.plan(), measured, limits or sample.thresholds(), sample.IMAGES)


def failed(acceptance: dict[str, Any]) -> list[str]:
    return [check["id"] for check in acceptance["checks"] if not check["ok"]]


def spoiled(part: str, spoil: Spoil) -> Measurements:
    measured = sample.measurements()
    data = copy.deepcopy(getattr(measured, part))
    spoil(data)
    return replace(measured, **{part: data})


def test_a_healthy_site_is_accepted() -> None:
    acceptance = judged(sample.measurements())
    assert failed(acceptance) == []
    assert acceptance["verdict"] == "accepted"
    assert [check["id"] for check in acceptance["checks"]] == [
        check for check, _ in suites.expected_checks(sample.plan())
    ]
    assert all(check["evidence"] for check in acceptance["checks"])
    assert acceptance["load"]["chat"]["ttft_ms"] == {
        "p50": 100,
        "p90": 151.3,
        "p95": 171.7,
        "p99": 211.9,
        "mean": 111.1,
    }
    assert acceptance["gateway"]["backends"]["chat"]["servers"]["chat-1"]["requests"] == 37
    assert acceptance["instances"][0]["requests"] == 37
    assert acceptance["instances"][0]["vllm_version"] == "0.32.0"


CASES: list[tuple[str, str, Spoil, str]] = [
    ("models_listed", "requests", lambda d: d["models_list"]["ids"].remove("default"), "missing: default"),
    (
        "model_answers:chat",
        "requests",
        lambda d: d["answers"]["chat"].update(status=503, error="none left"),
        "none left",
    ),
    ("model_answers:default", "requests", lambda d: d["answers"]["default"].update(completion_tokens=0), "0 tokens"),
    ("model_answers:org/Base", "requests", lambda d: d["answers"].pop("org/Base"), "nothing"),
    ("instance_served:chat-0", "after", lambda d: d["instances"]["chat-0"].update(requests=5), "counted 0"),
    ("instance_served:chat-1", "after", lambda d: d["instances"]["chat-1"].update(requests=2), "started anew"),
    ("instance_served:org-base-0", "after", lambda d: d["instances"].pop("org-base-0"), "nothing"),
    ("streaming:chat", "requests", lambda d: d["streams"]["chat"][0].update(first_seconds=0.39), "0.39 s"),
    ("streaming:chat", "requests", lambda d: d["streams"]["chat"][0].update(chunks=2), "2 chunks"),
    ("streaming:org/Base", "requests", lambda d: d["streams"]["org/Base"][0].update(done=False), "no [DONE]"),
    ("streaming:org/Base", "requests", lambda d: d["streams"]["org/Base"].clear(), "no chunk"),
    ("tool_call:chat", "requests", lambda d: d["tool_calls"]["chat"][0].update(arguments='{"city": "Os'), "not JSON"),
    ("tool_call:chat", "requests", lambda d: d["tool_calls"]["chat"][0].update(arguments='{"city": "Rome"}'), "schema"),
    ("tool_call:chat", "requests", lambda d: d["tool_calls"]["chat"][0].update(name=""), "called nothing"),
    (
        "tool_call:chat",
        "requests",
        lambda d: d["tool_calls"]["chat"][0].update(status=400, error="no tools"),
        "no tools",
    ),
    ("tool_call:chat", "requests", lambda d: d["tool_calls"].clear(), "not asked"),
    ("no_key_refused", "requests", lambda d: d["no_key"].update(status=200), "answered 200"),
    ("wrong_key_refused", "requests", lambda d: d["wrong_key"].update(error_object={}), "the body is no"),
    ("unknown_model_404", "requests", lambda d: d["unknown_model"].update(status=503), "answered 503"),
    ("outside_paths_closed", "requests", lambda d: d["closed_paths"][0].update(status=200), "GET /metrics (200)"),
    ("outside_paths_closed", "requests", lambda d: d["closed_paths"][0].update(server="uvicorn"), "GET /metrics (404)"),
    (
        "outside_paths_closed",
        "requests",
        lambda d: d["closed_paths"][0].update(status=0, error="refused"),
        "not be tried",
    ),
    ("outside_paths_closed", "requests", lambda d: d["closed_paths"].clear(), "0 paths"),
    ("trace_found", "traces", lambda d: d["trace"].update(found=False), "is not in Jaeger"),
    (
        "trace_found",
        "traces",
        lambda d: d["trace"]["attributes"].pop(sample.ATTRIBUTES[1]),
        "missing: gen_ai.latency.e2e",
    ),
    ("traces_of_every_instance", "traces", lambda d: d["services"]["vllm-chat-1"].update(found=False), "vllm-chat-1"),
    ("traces_of_every_instance", "traces", lambda d: d.pop("services"), "from none"),
    (
        "prefix_cache_hits:chat",
        "requests",
        lambda d: d["prefix"]["chat"].update(after=d["prefix"]["chat"]["before"]),
        "",
    ),
    ("prefix_cache_hits:org/Base", "requests", lambda d: d["prefix"]["org/Base"].update(answered=5), "5 of 6"),
    ("load:chat", "loads", lambda d: d["chat"].update(failed=1, completed=63), "1 failed"),
    ("load:org/Base", "loads", lambda d: d["org/Base"].update(completed=60), "only 60 of 64"),
    ("load:chat", "loads", lambda d: d.pop("chat"), "left no result"),
    ("gateway_no_errors", "after", lambda d: d["haproxy"].update(csv="", error="refused"), "refused"),
]


@pytest.mark.parametrize(
    ("check", "part", "spoil", "evidence"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_each_check_fails_alone(check: str, part: str, spoil: Spoil, evidence: str) -> None:
    acceptance = judged(spoiled(part, spoil))
    told = {entry["id"]: entry["evidence"] for entry in acceptance["checks"]}
    without_haproxy = {f"instance_served:{name}" for name in ("chat-0", "chat-1", "org-base-0")}
    assert set(failed(acceptance)) - (without_haproxy if check == "gateway_no_errors" else set()) == {check}
    assert acceptance["verdict"] == "rejected"
    assert evidence in told[check]


def test_every_kind_of_check_was_seen_to_fail() -> None:
    kinds = {check.partition(":")[0] for check, _ in suites.expected_checks(sample.plan())}
    assert {case[0].partition(":")[0] for case in CASES} == kinds


@pytest.mark.parametrize(
    ("where", "column", "word"),
    [
        (("chat", "BACKEND"), "hrsp_5xx", "answers 5xx"),
        (("chat", "BACKEND"), "econ", "connection errors"),
        (("chat", "BACKEND"), "eresp", "response errors"),
        (("chat", "BACKEND"), "wretr", "retries"),
        (("chat", "BACKEND"), "wredis", "redispatches"),
        (("org-base", "BACKEND"), "srv_abrt", "server aborts"),
        (("org-base", "BACKEND"), "chkdown", "times down"),
        (("openai", "FRONTEND"), "hrsp_5xx", "frontend answers 5xx"),
    ],
)
def test_each_kind_of_gateway_error_rejects(where: tuple[str, str], column: str, word: str) -> None:
    measured = spoiled("after", lambda d: d["haproxy"].update(csv=sample.csv(42, {where: {column: 2}})))
    acceptance = judged(measured)
    assert failed(acceptance) == ["gateway_no_errors"]
    assert f"2 {word}" in acceptance["checks"][-1]["evidence"]
    assert failed(judged(measured, sample.thresholds(gateway_errors_max=2))) == []


def test_a_gateway_that_was_restarted_cannot_vouch() -> None:
    acceptance = judged(spoiled("after", lambda d: d["haproxy"].update(csv=sample.csv(1))))
    assert "gateway_no_errors" in failed(acceptance)
    assert "restarted or reloaded" in acceptance["checks"][-1]["evidence"]


def test_nothing_measured_is_nothing_accepted() -> None:
    assert len(failed(judged(Measurements()))) == len(suites.expected_checks(sample.plan()))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"load_ttft_p95_ms_max": 100.0}, "TTFT p95 171.7 ms is over 100.0 ms"),
        ({"load_itl_p95_ms_max": 8.0}, "ITL p95 8.59 ms"),
        ({"load_e2e_p95_ms_max": 1.0}, "E2E p95 686.8 ms"),
        ({"load_requests_per_second_min": 50.0}, "9.83 requests/s is under 50.0"),
    ],
)
def test_load_thresholds_judge_when_they_are_set(limits: dict[str, float], told: str) -> None:
    acceptance = judged(sample.measurements(), sample.thresholds(**limits))
    assert failed(acceptance) == ["load:chat", "load:org/Base"]
    check = next(entry for entry in acceptance["checks"] if entry["id"] == "load:chat")
    assert told in check["evidence"]
    generous = {key: value * (1000 if key.endswith("max") else 0.001) for key, value in limits.items()}
    assert failed(judged(sample.measurements(), sample.thresholds(**generous))) == []


def test_a_threshold_of_one_model_wins_over_the_general_one() -> None:
    own = ({"model": "chat", "ttft_p95_ms_max": 100.0, "itl_p95_ms_max": None},)
    limits = sample.thresholds(load_ttft_p95_ms_max=1000.0, load_thresholds_by_model=own)
    assert failed(judged(sample.measurements(), limits)) == ["load:chat"]


def test_the_end_of_the_log_tells_why_a_load_run_left_nothing() -> None:
    measured = replace(spoiled("loads", lambda d: d.pop("chat")), load_logs={"chat": "one\nValueError: boom\n\n"})
    check = next(entry for entry in judged(measured)["checks"] if entry["id"] == "load:chat")
    assert "ValueError: boom" in check["evidence"]


def test_the_load_run_stands_next_to_the_gateway_when_the_model_does() -> None:
    plan = sample.plan()
    plan["instances"][0]["host"] = "node2"
    assert [run["container"] for run in suites.loads(plan, "node1")] == ["vllm-chat-1", "vllm-org-base-0"]
    assert [run["host"] for run in suites.loads(plan, "elsewhere")] == ["node2", "node1"]


def test_the_arguments_of_the_load_run_hold_no_key() -> None:
    shape = {
        "prompts": 4,
        "concurrency": 2,
        "input_tokens": 8,
        "output_tokens": 8,
        "seed": 1,
        "tokenizer": "/model",
        "result_dir": "/out",
        "result_name": "r.json",
        "extra": ["--tokenizer-mode", "slow"],
    }
    arguments = suites.bench_arguments("chat", "http://gateway:8000/v1", shape)
    pairs = dict(zip(arguments[::2], arguments[1::2], strict=False))
    assert pairs["--base-url"] == "http://gateway:8000"
    assert pairs["--endpoint"] == "/v1/chat/completions"
    assert arguments[-2:] == ["--tokenizer-mode", "slow"]
    assert not any("key" in argument.lower() for argument in arguments)


def test_what_the_measuring_modules_get_holds_no_environment() -> None:
    plan = sample.plan()
    plan["instances"][0]["env"] = {"TOKEN": "secret"}
    targets = suites.targets(plan)
    assert "secret" not in str(targets)
    assert targets[0]["tool"] == suites.TOOL
    assert targets[1]["tool"] == {}
    assert targets[0]["instances"][1] == {"name": "chat-1", "url": "http://127.0.0.1:8102"}


def test_images_are_those_that_run() -> None:
    def container(role: str, image_id: str, image: str) -> dict[str, Any]:
        return {"Labels": {"deployctl.role": role}, "ImageID": image_id, "Image": image}

    running = [
        container("vllm", "sha256:a", "vllm:1"),
        container("vllm", "sha256:a", "vllm:1"),
        container("vllm", "sha256:b", "vllm:2"),
        container("haproxy", "sha256:c", "haproxy:3.0"),
    ]
    known = [{"haproxy": {"id": "sha256:c", "reference": "mirror/haproxy:3.0", "source": "built"}}]
    assert suites.images(running, known) == {
        "haproxy": {"reference": "mirror/haproxy:3.0", "id": "sha256:c", "source": "built"},
        "vllm": {"reference": "vllm:1", "id": "sha256:a", "source": "present"},
        "vllm (b)": {"reference": "vllm:2", "id": "sha256:b", "source": "present"},
    }
