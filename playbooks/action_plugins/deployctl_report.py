"""Write the report of a past run again; thin, see deploy_cli/bench/report.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.bench import report
from deploy_cli.errors import Problem
from deploy_cli.outcome import last_judged
from deploy_cli.paths import read_json, runs_dir, write_private


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the run's folder and the report's files; fails with a problem when there is no run with a verdict."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec={"run": {"type": "path", "default": ""}})
        sources = (task_vars or {}).get("ansible_inventory_sources") or [""]
        folder = Path(arguments["run"]) if arguments["run"] else last_judged(runs_dir(), Path(str(sources[0])))
        if folder is None or read_json(folder / "acceptance.json") is None:
            what = "no run with a verdict: there is nothing to report"
            problem = Problem(str(folder or runs_dir()), what, "`deployctl up` and `deployctl accept` make one")
            return {**result, "failed": True, "msg": what, "problems": [problem.as_dict()]}
        try:
            report.write_reports(folder)
        except report.ReportError as error:
            hint = "name another run with --run; `deployctl accept` judges the site again"
            problem = Problem(str(folder / "acceptance.json"), str(error), hint)
            return {**result, "failed": True, "msg": str(error), "problems": [problem.as_dict()]}
        told = {"run": str(folder), "files": [str(file) for file in sorted(folder.glob("report.*"))]}
        if os.environ.get("DEPLOYCTL_RUN_DIR"):
            write_private(Path(os.environ["DEPLOYCTL_RUN_DIR"]) / "result.json", json.dumps(told) + "\n")
        return {**result, "changed": False, **told}
