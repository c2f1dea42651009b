"""A site of two models and what its acceptance measured when all was well; tests spoil one part at a time."""

from __future__ import annotations

from typing import Any

from deploy_cli.bench.acceptance import Measurements, Thresholds

COLUMNS = ["pxname", "svname", "qcur", "scur", "stot", "econ", "eresp", "wretr", "wredis", "status", "chkdown", "iid"]
COLUMNS += ["last_chk", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "req_tot", "srv_abrt"]
ATTRIBUTES = ("gen_ai.latency.time_to_first_token", "gen_ai.latency.e2e")


def instance(name: str, model: str, pool: str, port: int) -> dict[str, Any]:
    return {
        "name": name,
        "container": f"vllm-{name}",
        "model": model,
        "pool": pool,
        "host": "node1",
        "device_kind": "cpu",
        "devices": [0],
        "address": "127.0.0.1",
        "port": port,
    }


def plan() -> dict[str, Any]:
    return {
        "site": "sample",
        "models": [
            {"name": "chat", "pool": "chat", "served_names": ["chat", "default"], "tool_call_parser": "hermes"},
            {"name": "org/Base", "pool": "org-base", "served_names": ["org/Base"], "tool_call_parser": None},
        ],
        "instances": [
            instance("chat-0", "chat", "chat", 8101),
            instance("chat-1", "chat", "chat", 8102),
            instance("org-base-0", "org/Base", "org-base", 8103),
        ],
        "gateway": {"hosts": ["node1"], "base_url": "http://127.0.0.1:8000/v1"},
    }


def csv(served: int, spoiled: dict[tuple[str, str], dict[str, Any]] | None = None) -> str:
    """HAProxy's CSV after each server answered so many requests; spoiled: {(proxy, server): {column: value}}."""
    servers = {"chat": ["chat-0", "chat-1"], "org-base": ["org-base-0"]}
    rows = [{"pxname": "openai", "svname": "FRONTEND", "iid": 2, "req_tot": 3 * served, "status": "OPEN"}]
    for iid, (pool, names) in enumerate(servers.items(), start=3):
        for name in names:
            found = {"pxname": pool, "svname": name, "iid": iid, "stot": served, "hrsp_2xx": served, "status": "UP"}
            rows.append(found | {"last_chk": '"Layer7 check passed, ""all"" well"'})
        total = served * len(names)
        rows.append({"pxname": pool, "svname": "BACKEND", "iid": iid, "req_tot": total, "stot": total, "status": "UP"})
    lines = []
    for row in rows:
        row |= (spoiled or {}).get((str(row["pxname"]), str(row["svname"])), {})
        empty = "" if row["svname"] == "FRONTEND" else 0
        lines.append(",".join(str(row.get(column, empty)) for column in COLUMNS) + ",")
    return "\n".join(["# " + ",".join(COLUMNS) + ",", *lines, ""])


def counters(at: str, served: int) -> dict[str, Any]:
    each = {"requests": served, "prefix_hits": 10 * served, "prefix_queries": 20 * served, "error": ""}
    names = ("chat-0", "chat-1", "org-base-0")
    return {
        "at": at,
        "haproxy": {"csv": csv(served), "version": "3.0.11", "error": ""},
        "instances": {name: {**each, "version": "0.32.0"} for name in names},
    }


def bench() -> dict[str, Any]:
    raw: dict[str, Any] = {
        "num_prompts": 64,
        "completed": 64,
        "failed": 0,
        "duration": 6.5123,
        "request_throughput": 9.8276,
        "output_throughput": 314.6912,
        "total_input_tokens": 9024,
        "total_output_tokens": 2049,
        "max_concurrency": 8,
    }
    for metric, base in (("ttft", 100.0), ("itl", 5.0), ("e2el", 400.0)):
        values = {"p50": 1.0, "p90": 1.513, "p95": 1.717, "p99": 2.119}
        raw |= {f"{name}_{metric}_ms": base * value for name, value in values.items()}
        raw[f"mean_{metric}_ms"] = base * 1.111
    return raw


def requests() -> dict[str, Any]:
    error = {"message": "no", "type": "invalid_request_error", "code": None}
    answer = {"status": 200, "completion_tokens": 16, "seconds": 0.07, "finish_reason": "length", "error": ""}
    stream = {"status": 200, "chunks": 63, "first_seconds": 0.02, "last_seconds": 0.4, "done": True, "error": ""}
    call = {"status": 200, "name": "report_weather", "arguments": '{"city": "Oslo", "unit": "celsius"}', "error": ""}

    def prefix(*names: str) -> dict[str, Any]:
        return {
            "requests": 6,
            "answered": 6,
            "prompt_tokens": 755,
            "before": {name: {"prefix_hits": 0.0} for name in names},
            "after": {name: {"prefix_hits": 640.0} for name in names},
            "error": "",
        }

    return {
        "models_list": {"status": 200, "ids": ["chat", "default", "org/Base"], "error": ""},
        "answers": {name: dict(answer) for name in ("chat", "default", "org/Base")},
        "streams": {name: [dict(stream)] for name in ("chat", "org/Base")},
        "tool_calls": {"chat": [dict(call)]},
        "no_key": {"status": 401, "error_object": dict(error), "error": "no"},
        "wrong_key": {"status": 401, "error_object": dict(error), "error": "no"},
        "unknown_model": {"status": 404, "error_object": dict(error), "error": "no"},
        "closed_paths": [{"method": "GET", "path": "/metrics", "status": 404, "server": "", "error": ""}],
        "trace": {"trace_id": "ab" * 16, "model": "chat", "status": 200, "error": ""},
        "prefix": {"chat": prefix("chat-0", "chat-1"), "org/Base": prefix("org-base-0")},
    }


def traces() -> dict[str, Any]:
    return {
        "trace": {
            "found": True,
            "service": "vllm-chat-0",
            "attributes": {ATTRIBUTES[0]: 0.01234, ATTRIBUTES[1]: 0.05678},
            "error": "",
            "waited_seconds": 1.2,
        },
        "services": {f"vllm-{name}": {"found": True, "error": ""} for name in ("chat-0", "chat-1", "org-base-0")},
    }


def measurements() -> Measurements:
    return Measurements(
        before=counters("2026-11-20T10:00:00Z", 5),
        after=counters("2026-11-20T10:00:44Z", 42),
        requests=requests(),
        traces=traces(),
        loads={"chat": bench(), "org/Base": bench()},
        load_logs={},
    )


def thresholds(**changed: Any) -> Thresholds:
    values: dict[str, Any] = {
        "stream_chunks_min": 5,
        "stream_first_share_max": 0.5,
        "prefix_hit_tokens_min": 1,
        "trace_attributes": ATTRIBUTES,
        "load_prompts": 64,
        "load_failed_max": 0,
        "gateway_errors_max": 0,
    }
    return Thresholds(**(values | changed))


IMAGES = {"vllm": {"reference": "vllm/vllm-openai-cpu:v0.32.0-x86_64", "id": "sha256:9b70", "source": "built"}}
