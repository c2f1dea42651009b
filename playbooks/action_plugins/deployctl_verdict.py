"""The verdict of the acceptance, for Ansible: measurements and thresholds in, a judged run folder out.

A rejection is an answer, not a fault: this task succeeds with it, and the next one says it aloud.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from deploy_cli.bench import acceptance, report
from deploy_cli.errors import DeployctlError

LOG_CHARACTERS = 2000


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node and touches nothing but the run folder."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge, write acceptance.json and the reports; return verdict, summary, run_dir and the failed checks."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = json.loads(json.dumps(self._task.args))  # plain data, without Ansible's tags
        plan, run_dir = arguments["plan"], Path(arguments["run_dir"])
        limits = acceptance.Thresholds(**arguments["thresholds"])
        loads, logs = _load_files(plan, run_dir / "bench")
        measured = acceptance.Measurements(
            before=arguments["before"],
            after=arguments["after"],
            requests=arguments["requests"],
            traces=arguments["traces"],
            loads=loads,
            load_logs=logs,
        )
        judged = acceptance.judge(plan, measured, limits, arguments["images"])
        try:
            report.save(run_dir, judged)
            report.write_reports(run_dir)
        except (OSError, DeployctlError) as error:
            raise AnsibleActionFail(f"The report cannot be written: {error}") from error
        failed = [check["id"] for check in judged["checks"] if not check["ok"]]
        return {
            **result,
            "changed": False,
            "verdict": judged["verdict"],
            "summary": report.summary(judged),
            "failed_checks": failed,
            "run_dir": str(run_dir),
        }


def _load_files(plan: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Results and logs of the load runs, by model; a run that left nothing is simply not among them."""
    loads, logs = {}, {}
    for model in plan["models"]:
        result, log = folder / f"{model['pool']}.json", folder / f"{model['pool']}.log"
        if log.is_file():
            text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
            logs[model["name"]] = text[-LOG_CHARACTERS:]
        if result.is_file():
            loads[model["name"]] = json.loads(result.read_text(encoding="utf-8"))
    return loads, logs
