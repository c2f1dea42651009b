"""One look at all of a host that a run of `up` could change; equal digests mean that nothing has.

Containers as they were made and as they are, the images their names mean now, everything mounted into them read-only,
the engine and its configuration, and the NVIDIA driver. On a gateway every engine is also asked for a token.
Arguments: `site`, `probe` and `instances`, see programs/site_look.py. Result: `look`, `tokens`, `recorded`.

The program goes to the host as one command. As a module it would bring Ansible's own library with it, and unpacking and
importing that takes several times as long as the look itself.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).resolve().parents[1] / "programs/site_look.py"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Sends the program, and reads its answer."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("site", "probe", "instances"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer; failed with the host's own words where there is none."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        instances = self._task.args.get("instances") or []
        given = {
            "site": str(self._task.args["site"]),
            "probe": str(self._task.args.get("probe") or ""),
            "instances": [{"name": str(one["name"]), "model": str(one["model"])} for one in instances],
        }
        words = [self._python(task_vars), "-c", PROGRAM.read_text(), json.dumps(given)]
        done = self._low_level_execute_command(shlex.join(words))
        answers = [line for line in done["stdout"].splitlines() if line.startswith("{")]
        if done["rc"] or not answers:
            return {**result, "failed": True, "msg": (done["stderr"] or done["stdout"])[-2000:], "rc": done["rc"]}
        return {**result, "changed": False, **json.loads(answers[-1])}

    def _python(self, task_vars: Any) -> str:
        """The host's Python: the one that is set, or that was found before, or the one in its PATH."""
        chosen, _origin = constants.config.get_config_value_and_origin("INTERPRETER_PYTHON", variables=task_vars)
        named = str(self._templar.template(chosen))
        found = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python", "python3")
        return str(found) if named.startswith("auto") else named
