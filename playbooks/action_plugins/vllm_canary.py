"""A small acceptance of one engine, through the gateway, before clients reach it: is it the right one, whole, how fast?

Runs on a gateway host and uses HAProxy's probe socket, so the path is the clients' path. An engine that answers wrongly
or slowly is a finding, not a failure. Result: `problems`, `ttft_ms` and `tokens_per_second` (None: not measured).
"""

from __future__ import annotations

from typing import Any

from deploy_cli.host_program import HostProgram

ARGUMENTS = {
    "socket": {"type": "str", "required": True},  # HAProxy's probe socket; where it is not there, `url` is asked
    "url": {"type": "str", "required": True},
    "instance": {"type": "str", "required": True},  # name of the server in HAProxy
    "model": {"type": "str", "required": True},  # name that a client sends
    # Streamed answers before those that count; the first ones of an engine are slow.
    "warm_up": {"type": "int", "default": 0},
    # Seconds within which a warm-up that fails is begun again; HAProxy sees an engine at a health check.
    "patience": {"type": "int", "default": 0},
    # Streamed answers to ask for, one after another, and the tokens of each; they are measured.
    "requests": {"type": "int", "default": 1},
    "tokens": {"type": "int", "default": 16},
    # Questions with the regular expression that each answer must hold (`ask`, `matches`).
    "questions": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "int", "default": 60},  # seconds for one answer
}


class ActionModule(HostProgram):
    """Changes nothing."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(argument_spec=ARGUMENTS)
        return {**result, **self.ask("vllm_canary", {name: given[name] for name in ARGUMENTS}, task_vars)}
