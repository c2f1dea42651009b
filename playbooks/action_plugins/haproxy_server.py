"""Takes servers out of HAProxy's rotation and puts them back, in every backend that holds them.

`drain` keeps new requests from the servers and waits until the running ones have ended, for a bounded time. `ready`
puts them back. A gateway that does not run, or does not know a server, is not a failure.
Result: `changed`, `running` (requests left), `settled` (waiting longer changes nothing), `seconds`, `servers` and
`gateway` (whether one runs).
"""

from __future__ import annotations

from typing import Any

from deploy_cli.host_program import HostProgram

ARGUMENTS = {
    "socket": {"type": "str", "required": True},  # path of the admin socket on the host
    "servers": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["drain", "ready"], "required": True},
    # Seconds: `drain` waits for the last running request, `ready` until a health check succeeds.
    "wait": {"type": "int", "default": 0},
    # HAProxy's configuration on the host; `ready` also ends there the probation of the servers.
    "config": {"type": "str", "default": ""},
    # Seconds: `drain` waits before it begins until another server of each backend takes requests, and fails where none
    # does; 0: nobody else has to be there.
    "others": {"type": "int", "default": 0},
}


class ActionModule(HostProgram):
    """A dry run changes nothing and knows nothing."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if self._task.check_mode:
            nothing = {"changed": False, "running": 0, "settled": True, "seconds": 0, "servers": {}, "gateway": True}
            return {**result, **nothing}
        return {**result, **self.ask("haproxy_server", {name: given[name] for name in ARGUMENTS}, task_vars)}
