#!/usr/bin/python
"""Reads what HAProxy and every vLLM instance have counted so far; taken before and after the acceptance."""

from __future__ import annotations

import re
import time

from ansible.module_utils.acceptance_http import as_json, call, failure, instance_counters
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: acceptance_counters
short_description: Reads the counters of HAProxy and of every vLLM instance
description: Run on a gateway host, which reaches both. Changes nothing and never fails for what it cannot read.
author: deployctl
options:
  stats_url: {description: "HAProxy's statistics, without a path.", type: str, required: true}
  instances:
    description: The instances to read.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Name of the instance.", type: str, required: true}
      url: {description: "Its own address, as the gateway reaches it.", type: str, required: true}
  timeout: {description: "Seconds to wait for one answer.", type: float, required: true}
"""
EXAMPLES = r"""
- name: Counters are read
  acceptance_counters: {stats_url: "http://127.0.0.1:8404", instances: [], timeout: 10}
"""
RETURN = r"""
counters: {description: "Epoch, HAProxy's CSV and version, and the instances.", type: dict, returned: always}
"""


def read_counters(stats_url, instances, timeout):
    """Everything as data: epoch seconds, HAProxy's CSV text, and the counters of each instance."""
    stats_url = stats_url.rstrip("/")
    csv = call("GET", stats_url + "/;csv;norefresh", timeout=timeout)
    build = re.search(r'haproxy_process_build_info\{version="([^"]+)"', call("GET", stats_url + "/metrics")["text"])
    found = {}
    for instance in instances:
        url = instance["url"].rstrip("/")
        version = as_json(call("GET", url + "/version", timeout=timeout)["text"]).get("version", "")
        found[instance["name"]] = dict(instance_counters(url, timeout), version=version)
    return {
        "epoch": round(time.time(), 3),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "haproxy": {
            "csv": csv["text"] if csv["status"] == 200 else "",
            "version": build.group(1) if build else "",
            "error": failure(csv),
        },
        "instances": found,
    }


def main():
    """Entry point of the module."""
    instance = {"name": {"type": "str", "required": True}, "url": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "stats_url": {"type": "str", "required": True},
            "instances": {"type": "list", "elements": "dict", "required": True, "options": instance},
            "timeout": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    module.exit_json(
        changed=False, counters=read_counters(options["stats_url"], options["instances"], options["timeout"])
    )


if __name__ == "__main__":
    main()
