"""Programs that go to a host as one command, where time counts: the standard library only.

A module brings Ansible's own library with it, and unpacking and compiling that takes a host several times as long as
what these programs do. They take one JSON text as their argument, print one line of JSON, and know Python 3.9.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

FOLDER = Path(__file__).resolve().parents[1] / "playbooks/programs"


class HostProgram(ActionBase):  # type: ignore[misc]
    """Base of the action plugins that send one."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def ask(self, program: str, given: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        """Run playbooks/programs/<program>.py there; its answer, or failed with the host's own words.

        AnsibleConnectionFailure, as with any module, where the host is not reached. A host that is asked on behalf of
        another one (delegate_to) and is not reached is `failed` and `away`: Ansible would take the other one for lost,
        and no rescue would run.
        """
        source = (FOLDER / f"{program}.py").read_text()
        try:
            done = self._low_level_execute_command(
                shlex.join([self._python(task_vars), "-c", source, json.dumps(given)])
            )
        except AnsibleConnectionFailure as error:
            if not self._task.delegate_to:
                raise
            return {"failed": True, "away": True, "msg": f"{self._task.delegate_to} cannot be reached: {error}"}
        answers = [line for line in done["stdout"].splitlines() if line.startswith("{")]
        if done["rc"] or not answers:
            return {"failed": True, "msg": (done["stderr"] or done["stdout"])[-2000:], "rc": done["rc"]}
        found: dict[str, Any] = json.loads(answers[-1])
        return {"changed": False, **found}

    def _python(self, task_vars: Any) -> str:
        """The host's Python: the one that is set, or that was found before, or the one in its PATH."""
        there = self._task.delegate_to
        values = (task_vars.get("ansible_delegated_vars") or {}).get(there, task_vars) if there else task_vars
        chosen, _origin = constants.config.get_config_value_and_origin("INTERPRETER_PYTHON", variables=values)
        named = str(self._templar.template(chosen))
        found = (values.get("ansible_facts") or {}).get("discovered_interpreter_python", "python3")
        return str(found) if named.startswith("auto") else named
