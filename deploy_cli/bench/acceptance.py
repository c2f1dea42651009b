"""Measurements and thresholds -> the verdict. Pure: the same input always says the same.

A check without a measurement fails: what was not seen is not accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jsonschema

from deploy_cli.bench import results, suites
from deploy_cli.errors import count
from deploy_cli.gateway import stats

Data = Mapping[str, Any]
Judgement = tuple[bool, Any, Any, str]  # ok, measured, threshold, evidence

GATEWAY_ERRORS = (
    "answers_5xx",
    "connection_errors",
    "response_errors",
    "retries",
    "redispatches",
    "server_aborts",
    "times_down",
)
LIMITS = {"ttft_p95_ms_max": "ttft_ms", "itl_p95_ms_max": "itl_ms", "e2e_p95_ms_max": "e2e_ms"}


@dataclass(frozen=True)
class Check:
    """One thing the acceptance asked, and what came back."""

    id: str
    title: str
    ok: bool
    measured: Any
    threshold: Any
    evidence: str


@dataclass(frozen=True)
class Thresholds:
    """What the measurements are held against; None = reported, not judged."""

    stream_chunks_min: int
    stream_first_share_max: float
    prefix_hit_tokens_min: int
    trace_attributes: tuple[str, ...]
    load_prompts: int
    load_failed_max: int
    gateway_errors_max: int
    load_ttft_p95_ms_max: float | None = None
    load_itl_p95_ms_max: float | None = None
    load_e2e_p95_ms_max: float | None = None
    load_requests_per_second_min: float | None = None
    load_thresholds_by_model: tuple[Data, ...] = ()

    def of_load(self, model: str) -> dict[str, float]:
        """The load thresholds that are set for this model: its own entry wins over the general ones."""
        names = (*LIMITS, "requests_per_second_min")
        general = {name: getattr(self, f"load_{name}") for name in names}
        own = next((entry for entry in self.load_thresholds_by_model if entry["model"] == model), {})
        merged = {**general, **{name: own[name] for name in names if own.get(name) is not None}}
        return {name: float(value) for name, value in merged.items() if value is not None}


@dataclass(frozen=True)
class Measurements:
    """What the measuring modules brought home; an empty part is one that could not be measured.

    before, after: acceptance_counters; requests: acceptance_requests; traces: acceptance_traces;
    loads: {model: the result file of the load run}; load_logs: {model: the end of its log}.
    """

    before: Data = field(default_factory=dict)
    after: Data = field(default_factory=dict)
    requests: Data = field(default_factory=dict)
    traces: Data = field(default_factory=dict)
    loads: Data = field(default_factory=dict)
    load_logs: Mapping[str, str] = field(default_factory=dict)


def judge(plan: Data, measured: Measurements, limits: Thresholds, images: Data) -> dict[str, Any]:
    """The whole of acceptance.json."""
    gateway, trouble = _gateway_change(measured)
    load = {model: results.load_entry(raw) for model, raw in measured.loads.items()}
    judges: dict[str, Callable[[str], Judgement]] = {
        "models_listed": lambda _: _listed(plan, measured.requests),
        "model_answers": lambda name: _answers(measured.requests, name),
        "instance_served": lambda name: _served(plan, measured, gateway, name),
        "streaming": lambda name: _streams(measured.requests, name, limits),
        "tool_call": lambda name: _calls_tool(measured.requests, name),
        "no_key_refused": lambda _: _refused(measured.requests.get("no_key"), 401),
        "wrong_key_refused": lambda _: _refused(measured.requests.get("wrong_key"), 401),
        "unknown_model_404": lambda _: _refused(measured.requests.get("unknown_model"), 404),
        "outside_paths_closed": lambda _: _closed(measured.requests),
        "trace_found": lambda _: _traced(measured, limits),
        "traces_of_every_instance": lambda _: _all_traced(plan, measured.traces),
        "prefix_cache_hits": lambda name: _prefix(measured.requests, name, limits),
        "load": lambda name: _bears(name, load.get(name), measured.load_logs.get(name, ""), limits),
        "gateway_no_errors": lambda _: _quiet(plan, gateway, trouble, limits),
    }
    checks = []
    for check_id, title in suites.expected_checks(plan):
        kind, _, name = check_id.partition(":")
        checks.append(Check(check_id, title, *judges[kind](name)))
    return {
        "version": 1,
        "verdict": "accepted" if all(check.ok for check in checks) else "rejected",
        "started": measured.before.get("at", ""),
        "ended": measured.after.get("at", ""),
        "site": plan["site"],
        "base_url": plan["gateway"]["base_url"],
        "checks": [asdict(check) for check in checks],
        "load": load,
        "gateway": _gateway_data(measured, gateway),
        "instances": [_instance_data(entry, measured, gateway) for entry in plan["instances"]],
        "images": {name: dict(image) for name, image in images.items()},
    }


def _error(found: Data) -> str:
    return f": {found['error']}" if found.get("error") else ""


def _listed(plan: Data, requests: Data) -> Judgement:
    expected = [name for model in plan["models"] for name in model["served_names"]]
    found = requests.get("models_list") or {}
    listed = list(found.get("ids") or [])
    missing = [name for name in expected if name not in listed]
    said = f"GET /v1/models answered {found.get('status', 'nothing')}{_error(found)}"
    return not missing, listed, expected, said + (f"; missing: {', '.join(missing)}" if missing else "")


def _answers(requests: Data, name: str) -> Judgement:
    found = (requests.get("answers") or {}).get(name) or {}
    tokens = int(found.get("completion_tokens") or 0)
    ok = found.get("status") == 200 and tokens > 0
    said = f"POST /v1/chat/completions answered {found.get('status', 'nothing')}{_error(found)}"
    if found.get("status") == 200:
        said += f": {count(tokens, 'token')} in {found['seconds']} s, ended by {found['finish_reason'] or 'nothing'}"
    return ok, tokens, 1, said


def _served(plan: Data, measured: Measurements, gateway: stats.Stats, name: str) -> Judgement:
    entry = next(entry for entry in plan["instances"] if entry["name"] == name)
    own = _instance_change(measured, name, "requests")
    pool = gateway.backends.get(entry["pool"])
    server = pool.servers.get(name) if pool else None
    through = server.counters.requests if server else 0
    after = (measured.after.get("instances") or {}).get(name) or {}
    said = f"the instance counted {'nothing' if own is None else own}, HAProxy sent it {through}{_error(after)}"
    if own is not None and own < 0:
        said += "; its counter went down: the engine was started anew in between"
    return (own or 0) > 0 and through > 0, {"instance": own, "gateway": through}, {"instance": 1, "gateway": 1}, said


def _streams(requests: Data, name: str, limits: Thresholds) -> Judgement:
    tries = list((requests.get("streams") or {}).get(name) or [])
    found = tries[-1] if tries else {}
    chunks, first, last = int(found.get("chunks") or 0), found.get("first_seconds"), found.get("last_seconds")
    share = round(first / last, 3) if first is not None and last else None
    early = share is not None and share <= limits.stream_first_share_max
    ok = early and chunks >= limits.stream_chunks_min and bool(found.get("done"))
    if chunks:
        said = f"{count(chunks, 'chunk')}: the first after {first} s, the last after {last} s"
        said += ", then [DONE]" if found.get("done") else ", and no [DONE]"
        said += f" (attempt {len(tries)})" if len(tries) > 1 else ""
    else:
        said = f"no chunk came, HTTP {found.get('status', 'nothing')}"
    threshold = {"chunks_min": limits.stream_chunks_min, "first_share_max": limits.stream_first_share_max}
    return ok, {"chunks": chunks, "first_share": share}, threshold, said + _error(found)


def _calls_tool(requests: Data, name: str) -> Judgement:
    tries = list((requests.get("tool_calls") or {}).get(name) or [])
    function = suites.TOOL["function"]
    last = tries[-1] if tries else {}
    fault = "it was not asked" if not tries else ""
    if tries and last.get("status") != 200:
        fault = f"HTTP {last.get('status')}{_error(last)}"
    elif tries and last.get("name") != function["name"]:
        fault = f"it called {last.get('name') or 'nothing'} instead of {function['name']}"
    elif tries:
        fault = _argument_fault(str(last.get("arguments", "")), function["parameters"])
    said = fault or f"{function['name']}({' '.join(str(last['arguments']).split())}) at attempt {len(tries)}"
    return not fault, "no valid call" if fault else "valid JSON that follows the schema", "a valid call", said


def _argument_fault(arguments: str, schema: Data) -> str:
    try:
        jsonschema.validate(json.loads(arguments), schema)
    except ValueError as error:
        return f"its arguments are not JSON ({error}): {arguments.strip()[:80]!r}"
    except jsonschema.ValidationError as error:
        return f"its arguments do not follow the schema: {error.message}"
    return ""


def _refused(found: Data | None, status: int) -> Judgement:
    found = found or {}
    error = found.get("error_object") or {}
    openai_style = bool(error.get("message")) and "type" in error
    said = f"answered {found.get('status', 'nothing')}{_error(found)}"
    if not openai_style:
        said += '; the body is no {"error": {"message", "type"}}'
    threshold = {"status": status, "error_object": True}
    measured = {"status": found.get("status"), "error_object": openai_style}
    return measured == threshold, measured, threshold, said


def _closed(requests: Data) -> Judgement:
    tried = list(requests.get("closed_paths") or [])
    # An engine names its web server, uvicorn, in its answers: such an answer came through, whatever its status.
    engine = [entry for entry in tried if "uvicorn" in str(entry.get("server", "")).lower()]
    silent = [entry for entry in tried if not entry["status"]]
    through = [entry for entry in tried if entry in engine or not 400 <= entry["status"] < 500]
    open_paths = [f"{entry['method']} {entry['path']} ({entry['status']})" for entry in through if entry not in silent]
    said = f"{count(len(tried), 'path')} tried with a good key: "
    said += ", ".join(f"{entry['path']} {entry['status']}" for entry in tried)
    if open_paths:
        said = f"reachable: {', '.join(open_paths)}"
    elif silent:
        said = f"{count(len(silent), 'path')} could not be tried{_error(silent[0])}"
    return bool(tried) and not through, len(through), 0, said


def _traced(measured: Measurements, limits: Thresholds) -> Judgement:
    trace, sent = measured.traces.get("trace") or {}, measured.requests.get("trace") or {}
    wanted = list(limits.trace_attributes)
    values = {key: value for key, value in (trace.get("attributes") or {}).items() if "latency" in key}
    missing = [key for key in wanted if not isinstance(values.get(key), int | float)]
    shown = {key.removeprefix("gen_ai.latency.") + "_ms": round(1000 * value, 2) for key, value in values.items()}
    if not trace.get("found"):
        said = f"trace {sent.get('trace_id', '')} is not in Jaeger; its request was answered {sent.get('status')}"
        return False, {}, wanted, said + (_error(sent) or _error(trace))
    said = f"trace {sent['trace_id']} of {trace['service']}, found after {trace['waited_seconds']} s"
    return not missing, shown, wanted, said + (f"; missing: {', '.join(missing)}" if missing else "")


def _all_traced(plan: Data, traces: Data) -> Judgement:
    services = traces.get("services") or {}
    expected = [suites.service_name(entry) for entry in plan["instances"]]
    found = [name for name in expected if (services.get(name) or {}).get("found")]
    missing = [name for name in expected if name not in found]
    errors = sorted({str(entry["error"]) for entry in services.values() if entry.get("error")})
    said = "Jaeger holds request spans of this acceptance from " + (", ".join(found) or "none")
    said += f"; none from {', '.join(missing)}" if missing else ""
    return not missing, len(found), len(expected), said + (f" ({'; '.join(errors)})" if errors else "")


def _prefix(requests: Data, name: str, limits: Thresholds) -> Judgement:
    found = (requests.get("prefix") or {}).get(name) or {}
    before, after = found.get("before") or {}, found.get("after") or {}
    each = {key: int((after[key]["prefix_hits"] or 0) - (before[key]["prefix_hits"] or 0)) for key in after}
    hits = sum(each.values())
    answered = int(found.get("answered") or 0)
    ok = hits >= limits.prefix_hit_tokens_min and answered > 0 and answered == found.get("requests")
    said = f"{answered} of {found.get('requests', 0)} requests of {found.get('prompt_tokens', 0)} tokens answered"
    said += "".join(f"; {key} took {value} tokens from its cache" for key, value in each.items())
    return ok, hits, limits.prefix_hit_tokens_min, said + _error(found)


def _bears(name: str, entry: dict[str, Any] | None, log: str, limits: Thresholds) -> Judgement:
    own = limits.of_load(name)
    threshold: dict[str, Any] = {"completed": limits.load_prompts, "failed_max": limits.load_failed_max, **own}
    if entry is None:
        last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it left no log")
        return False, {}, threshold, f"the load run left no result; the end of its log: {last[:200]}"
    measured = {"completed": entry["completed"], "failed": entry["failed"]}
    missed = []
    if entry["failed"] > limits.load_failed_max:
        missed.append(f"{entry['failed']} failed")
    if entry["completed"] < limits.load_prompts - limits.load_failed_max:
        missed.append(f"only {entry['completed']} of {limits.load_prompts} completed")
    for limit, metric in LIMITS.items():
        measured[limit.removesuffix("_max")] = entry[metric]["p95"]
        if limit in own and entry[metric]["p95"] > own[limit]:
            missed.append(f"{metric.removesuffix('_ms').upper()} p95 {entry[metric]['p95']} ms is over {own[limit]} ms")
    measured["requests_per_second"] = entry["requests_per_s"]
    if entry["requests_per_s"] < own.get("requests_per_second_min", 0):
        missed.append(f"{entry['requests_per_s']} requests/s is under {own['requests_per_second_min']}")
    said = f"{entry['completed']} of {entry['requested']} requests, {entry['concurrency']} at a time"
    said += f", in {entry['duration_s']} s"
    return not missed, measured, threshold, "; ".join([*missed, said])


def _quiet(plan: Data, gateway: stats.Stats, trouble: str, limits: Thresholds) -> Judgement:
    pools = [model["pool"] for model in plan["models"]]
    missing = [pool for pool in pools if pool not in gateway.backends]
    totals = {
        name: sum(getattr(gateway.backends[pool].counters, name) for pool in pools if pool not in missing)
        for name in GATEWAY_ERRORS
    }
    totals["frontend_answers_5xx"] = sum(entry.counters.answers_5xx for entry in gateway.frontends.values())
    worst = max(totals.values())
    ok = not trouble and not missing and worst <= limits.gateway_errors_max
    seen = [f"{value} {name.replace('_', ' ')}" for name, value in totals.items() if value]
    requests = sum(gateway.backends[pool].counters.requests for pool in pools if pool not in missing)
    said = trouble or f"HAProxy passed on {count(requests, 'request')}: {', '.join(seen) or 'no error of any kind'}"
    if missing and not trouble:
        said += f"; it has no backend {', '.join(missing)}"
    return ok, totals, {"each_max": limits.gateway_errors_max}, said


def _gateway_change(measured: Measurements) -> tuple[stats.Stats, str]:
    """What HAProxy counted during the acceptance, and why that cannot be said."""
    readings = []
    for when, counters in (("before", measured.before), ("after", measured.after)):
        found = counters.get("haproxy") or {}
        try:
            readings.append(stats.parse(str(found.get("csv", ""))))
        except stats.StatsError as error:
            return stats.Stats({}, {}), f"HAProxy's statistics {when} the run: {found.get('error') or error}"
    try:
        return stats.change(*readings), ""
    except stats.StatsError as error:
        return stats.Stats({}, {}), f"HAProxy: {error}"


def _gateway_data(measured: Measurements, gateway: stats.Stats) -> dict[str, Any]:
    def row(proxy: stats.Proxy) -> dict[str, Any]:
        return {"status": proxy.status, **asdict(proxy.counters)}

    return {
        "version": (measured.after.get("haproxy") or {}).get("version", ""),
        "frontends": {name: row(proxy) for name, proxy in gateway.frontends.items()},
        "backends": {
            name: {**row(proxy), "servers": {key: row(server) for key, server in proxy.servers.items()}}
            for name, proxy in gateway.backends.items()
        },
    }


def _instance_change(measured: Measurements, name: str, counter: str) -> int | None:
    ends = [((part.get("instances") or {}).get(name) or {}).get(counter) for part in (measured.before, measured.after)]
    return None if ends[0] is None or ends[1] is None else int(ends[1] - ends[0])


def _instance_data(entry: Data, measured: Measurements, gateway: stats.Stats) -> dict[str, Any]:
    name = entry["name"]
    after = (measured.after.get("instances") or {}).get(name) or {}
    return {
        **{key: entry[key] for key in ("name", "model", "host", "address", "port", "device_kind", "devices")},
        "vllm_version": after.get("version", ""),
        "requests": _instance_change(measured, name, "requests"),
        "prefix_hit_tokens": _instance_change(measured, name, "prefix_hits"),
        "prompt_tokens": _instance_change(measured, name, "prefix_queries"),
    }
