"""Asks engines for a token, and says what those that cannot answer yet are doing.

An engine is ready when it generates a token; /health alone says too little. Answers as soon as all are ready, and after
`patience` at the latest. Meant for `until`. Result: `ready`, `settled` (waiting longer changes nothing), `fatal` (which
will not come up by themselves, and why), `msg`, `progress` (what each is doing) and `instances`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from deploy_cli.host_program import HostProgram

ARGUMENTS = {
    # `name`, `url` and `served_names` of each; nothing else of them goes to the host.
    "containers": {"type": "list", "elements": "dict", "required": True},
    "timeout": {"type": "int", "default": 30},  # seconds for one token
    "patience": {"type": "int", "default": 0},  # seconds that are waited on the host
}


class ActionModule(HostProgram):
    """Changes nothing."""

    # Of the first look. The class's: Ansible makes each try of a task with another object, all in one process that ends
    # with the task.
    restarts: ClassVar[dict[str, int] | None] = None

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        asked = {
            "containers": [{key: one[key] for key in ("name", "url", "served_names")} for one in given["containers"]],
            "timeout": given["timeout"],
            "patience": given["patience"],
            "restarts": self.restarts or {},
        }
        answer = self.ask("vllm_ready", asked, task_vars)
        if self.restarts is None and "instances" in answer:
            type(self).restarts = {one["name"]: one["restarts"] for one in answer["instances"]}
        # Where the program itself fails, another try would too.
        return {**result, "ready": False, "settled": True, **answer}
