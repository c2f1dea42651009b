"""Judge what was found on the hosts: doctor.json, one screen a host, and a stop where asked; see deploy_cli/doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.doctor.judge import judge
from deploy_cli.doctor.lines import blocking, document, plain, refusal
from deploy_cli.paths import write_private


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads what the look registered on its hosts."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the document under `doctor` and the lines as `msg`; with `stop`, fail on all that blocks at once."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "dict", "required": True},
                "run_dir": {"type": "path", "required": True},
                "stop": {"type": "bool", "default": False},
            }
        )
        hostvars = (task_vars or {})["hostvars"]
        found = []
        for host in arguments["plan"]["hosts"]:
            known = hostvars[host]
            # A host that was not asked (--limit) has no such variable.
            if "host_checks_look" not in known or "site_needs" not in known:
                continue
            gpu = (known.get("ansible_facts") or {}).get("gpu")
            found += judge(host, known["host_checks_look"], gpu, known["site_needs"]["needs"])
        answer = document(str(arguments["plan"].get("site")), found)
        write_private(Path(arguments["run_dir"]) / "doctor.json", json.dumps(answer, indent=1) + "\n")
        stopping = blocking(found)
        if arguments["stop"] and stopping:
            return {**result, "failed": True, "msg": refusal(stopping)}
        return {**result, "changed": False, "doctor": answer, "msg": plain(answer)}
