"""Merge what the hosts and the gateway answered into status.json and one table; thin, see deploy_cli/status.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.gateway import stats
from deploy_cli.paths import write_private
from deploy_cli.status import lines, merge


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads the variables that the status playbook registered on its hosts."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the document under `status` and the table as `msg`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(
            argument_spec={"plan": {"type": "dict", "required": True}, "run_dir": {"type": "path", "required": True}}
        )
        hostvars = (task_vars or {})["hostvars"]
        plan = arguments["plan"]
        hosts = _answers(hostvars, {instance["host"] for instance in plan["instances"]}, "status_instances")
        gateways = _answers(hostvars, set(plan["gateway"]["hosts"]), "haproxy_stats_answer")
        document = merge(plan, hosts, {host: _servers(answer) for host, answer in gateways.items()})
        write_private(Path(arguments["run_dir"]) / "status.json", json.dumps(document, indent=1) + "\n")
        return {**result, "changed": False, "status": document, "msg": lines(document)}


def _answers(hostvars: Any, hosts: set[str], name: str) -> dict[str, Any]:
    """What each host answered; hosts that were not asked (--limit) have no such variable."""
    return {host: hostvars[host][name] for host in sorted(hosts) if name in hostvars[host]}


def _servers(answer: Any) -> dict[str, Any]:
    """The servers of each pool, out of HAProxy's CSV."""
    if answer.get("unreachable"):
        return {"error": "unreachable"}
    if not answer.get("content"):
        return {"error": str(answer.get("msg", "no answer"))}
    try:
        backends = stats.parse(str(answer["content"])).backends
    except stats.StatsError as error:
        return {"error": str(error)}
    return {
        "servers": {
            pool: {
                name: {"status": server.status, "sessions": server.sessions, "queued": server.queued}
                for name, server in backend.servers.items()
            }
            for pool, backend in backends.items()
        }
    }
