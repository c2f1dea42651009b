"""One look at all of a host that a run of `up` could change; equal digests mean that nothing has.

Containers as they were made and as they are, the images their names mean now, everything mounted into them read-only,
the engine and its configuration, and the NVIDIA driver. On a gateway every engine is also asked for a token.
Arguments: `site`, `probe` and `instances`, see programs/site_look.py. Result: `look`, `tokens`, `recorded`, `accepted`.
"""

from __future__ import annotations

from typing import Any

from deploy_cli.host_program import HostProgram


class ActionModule(HostProgram):
    """Changes nothing."""

    _VALID_ARGS = frozenset(("site", "probe", "instances"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = {
            "site": str(self._task.args["site"]),
            "probe": str(self._task.args.get("probe") or ""),
            "instances": [
                {"name": str(one["name"]), "model": str(one["model"])} for one in self._task.args.get("instances") or []
            ],
        }
        return {**result, **self.ask("site_look", given, task_vars)}
