"""The result file of `vllm bench serve` in the words of acceptance.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATENCIES = {"ttft_ms": "ttft", "itl_ms": "itl", "e2e_ms": "e2el"}
PERCENTILES = ("p50", "p90", "p95", "p99")


def load_entry(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One model's load: requests and tokens per second, how many completed and failed, and latencies in ms.

    KeyError when the file lacks a number that every version writes.
    """
    requested, completed = int(raw["num_prompts"]), int(raw["completed"])
    return {
        "requests_per_s": _short(raw["request_throughput"]),
        "output_tokens_per_s": _short(raw["output_throughput"]),
        "requested": requested,
        "completed": completed,
        "failed": int(raw.get("failed", requested - completed)),
        "duration_s": _short(raw["duration"]),
        "concurrency": int(raw.get("max_concurrency") or requested),
        "input_tokens": int(raw["total_input_tokens"]),
        "output_tokens": int(raw["total_output_tokens"]),
        **{name: _latency(raw, metric) for name, metric in LATENCIES.items()},
    }


def _latency(raw: Mapping[str, Any], metric: str) -> dict[str, float]:
    found = {name: _short(raw[f"{name}_{metric}_ms"]) for name in PERCENTILES}
    return {**found, "mean": _short(raw[f"mean_{metric}_ms"])}


def _short(value: Any) -> float:
    """Two decimals: more would be noise, and nobody reads them."""
    return round(float(value or 0), 2)
