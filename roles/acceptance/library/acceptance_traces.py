#!/usr/bin/python
"""Looks in Jaeger for one known trace and for a request of every instance, until both are there or the time is up."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from ansible.module_utils.acceptance_http import as_json, call, failure
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: acceptance_traces
short_description: Finds the acceptance's traces in Jaeger
description: Run on the telemetry host, where alone Jaeger's API is reachable. Engines hand over spans after seconds.
author: deployctl
options:
  jaeger_url: {description: "Jaeger's query API, without a path.", type: str, required: true}
  trace_id: {description: "The known trace, 32 hexadecimal digits.", type: str, required: true}
  services: {description: "Services that must have sent a span.", type: list, elements: str, required: true}
  since: {description: "Seconds since 1970; older spans do not count.", type: float, required: true}
  timeout: {description: "Seconds to go on looking.", type: float, required: true}
"""
EXAMPLES = r"""
- name: Traces are found
  acceptance_traces: {jaeger_url: "http://127.0.0.1:16686", trace_id: "0af7", services: [], since: 0, timeout: 30}
"""
RETURN = r"""
traces: {description: "The trace and the services as found.", type: dict, returned: always}
"""

REQUEST_SPAN = "llm_request"


def plain(attributes):
    """OTLP's attribute list as a plain dict."""
    found = {}
    for attribute in attributes or []:
        for kind, value in (attribute.get("value") or {}).items():
            if kind in ("stringValue", "boolValue"):
                found[attribute.get("key")] = value
            elif kind in ("doubleValue", "intValue"):
                found[attribute.get("key")] = float(value)
    return found


def request_spans(document):
    """(service, attributes) of every request span in an OTLP answer."""
    spans = []
    for resource in (document.get("result") or {}).get("resourceSpans") or []:
        service = plain((resource.get("resource") or {}).get("attributes")).get("service.name", "")
        for scope in resource.get("scopeSpans") or []:
            for span in scope.get("spans") or []:
                if span.get("name") == REQUEST_SPAN:
                    spans.append((service, plain(span.get("attributes"))))
    return spans


def stamp(epoch):
    """Seconds since 1970 as Jaeger's API wants them."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime(epoch))


def find_trace(url, trace_id):
    """The known trace; Jaeger answers 404 for one that it does not have (yet)."""
    answer = call("GET", url + "/api/v3/traces/" + trace_id)
    spans = request_spans(as_json(answer["text"]))
    service, attributes = spans[0] if spans else ("", {})
    return {
        "found": bool(spans),
        "service": service,
        "attributes": {key: value for key, value in attributes.items() if str(key).startswith("gen_ai.")},
        "error": failure(answer, (200, 404)),
    }


def find_service(url, service, since):
    """Request spans that this service sent since then (one trace is looked at, not all)."""
    # These spellings are understood by Jaeger 2.13 and by those after it.
    query = {
        "query.service_name": service,
        "query.operation_name": REQUEST_SPAN,
        "query.start_time_min": stamp(since),
        "query.start_time_max": stamp(time.time() + 60),
        "query.num_traces": 1,
    }
    answer = call("GET", url + "/api/v3/traces?" + urlencode(query))
    spans = [span for span in request_spans(as_json(answer["text"])) if span[0] == service]
    return {
        "found": bool(spans),
        "error": failure(answer, (200, 404)),
    }


def look(url, trace_id, services, since, timeout, pause=1.0):
    """Looks until everything is found or `timeout` seconds are over."""
    started = time.monotonic()
    url = url.rstrip("/")
    trace, found = {"found": False}, {service: {"found": False} for service in services}
    while True:
        if not trace["found"]:
            trace = dict(find_trace(url, trace_id), waited_seconds=round(time.monotonic() - started, 1))
        for service in services:
            if not found[service]["found"]:
                found[service] = find_service(url, service, since)
        complete = trace["found"] and all(entry["found"] for entry in found.values())
        if complete or time.monotonic() - started >= timeout:
            return {"trace": trace, "services": found}
        time.sleep(pause)


def main():
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "jaeger_url": {"type": "str", "required": True},
            "trace_id": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "str", "required": True},
            "since": {"type": "float", "required": True},
            "timeout": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    traces = look(options["jaeger_url"], options["trace_id"], options["services"], options["since"], options["timeout"])
    module.exit_json(changed=False, traces=traces)


if __name__ == "__main__":
    main()
