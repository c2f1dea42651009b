"""Tell what a client needs. The key never stands in a result or a log: see `run`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from deploy_cli.paths import write_private
from deploy_cli.status import client_env, env_lines


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node, with the gateway's variables."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Hand the values to deployctl in its run folder, which is gone afterwards; to a person on the screen only."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec={"plan": {"type": "dict", "required": True}})
        keys = self._templar.template((task_vars or {}).get("haproxy_api_keys", []))
        values = client_env(arguments["plan"], keys)
        folder = os.environ.get("DEPLOYCTL_RUN_DIR")
        if folder:
            write_private(Path(folder) / "env.json", json.dumps(values) + "\n")
        else:
            Display().display("\n".join(env_lines(values)), screen_only=True)
        return {**result, "changed": False}
