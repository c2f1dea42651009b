"""Open a bundle on the control node and say whether it is whole and of this site; meant for `until: result.finished`.

Never fails for what is wrong with the bundle: that stands in `problems`, so that the hosts' needs can be told with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.bundle import archive, background


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the control node; reads the file and nothing else."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return finished, progress, file (absolute), id, manifest (empty when not readable) and problems."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(
            argument_spec={"file": {"type": "str", "required": True}, "site": {"type": "str", "required": True}}
        )
        file = Path(arguments["file"]).expanduser().absolute()

        def work(say: background.Say) -> tuple[archive.Bundle | None, list[Any]]:
            return archive.open_checked(file, arguments["site"], say, archive.memory_of(file))

        ended, progress, found = background.step(f"open {file}", work)
        result |= {"changed": False, "finished": ended, "progress": progress, "file": str(file)}
        if ended:
            bundle, problems = found
            result |= {
                "id": bundle.id if bundle else "",
                "manifest": {k: v for k, v in bundle.manifest.items() if k != "files"} if bundle else {},
                "problems": [problem.as_dict() for problem in problems],
            }
        return result
