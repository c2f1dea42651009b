"""Merges the states that the hosts keep into history.json; names the one that the hosts are in now.

Argument `run_dir`. Environment: DEPLOYCTL_STATES, two ids with a comma between, to say what differs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli import history, paths
from deploy_cli.errors import UsageError


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads what `site_states` and `site_look` registered on the hosts."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the document under `history`; refused when a state that was asked for is not there.

        Where hosts did not answer, that is told instead: it may be there.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        kept, looks, silent = history.gather(task_vars["hostvars"], task_vars["groups"])
        document = history.document(kept, history.current(looks), silent)
        pair = [part for part in os.environ.get("DEPLOYCTL_STATES", "").split(",") if part]
        try:
            if pair:
                document["differences"] = history.compare(kept, *pair)
        except UsageError as error:
            if silent:
                told = f"{error}; {history.unanswered(silent)}"
                return {**result, "failed": True, "msg": told, "hint": error.hint, "unseen": list(silent)}
            problem = {"where": "deployctl history", "what": str(error), "hint": error.hint, "severity": "error"}
            return {**result, "failed": True, "msg": f"{error}. Hint: {error.hint}", "problems": [problem]}
        run_dir = self._task.args.get("run_dir") or os.environ.get("DEPLOYCTL_RUN_DIR")
        if run_dir:
            paths.write_private(Path(run_dir) / "history.json", json.dumps(document, indent=1) + "\n")
        return {**result, "changed": False, "history": document, "msg": _lines(document, silent)}


def _lines(document: dict[str, Any], silent: dict[str, str]) -> list[str]:
    return [*history.lines(document), *([history.unanswered(silent)] if silent else [])]
