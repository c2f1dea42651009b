"""A small acceptance of one engine, through the gateway, before clients reach it: is it the right one, whole, how fast?

Runs on a gateway host and uses HAProxy's probe socket, so the path is the clients' path. Result: `problems`, `ttft_ms`
and `tokens_per_second` (None: not measured). An engine that answers wrongly, or much slower than the one `before`, is a
finding; with `must_pass` it is a failure.
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
JUDGING = {
    "must_pass": {"type": "bool", "default": False},
    "before": {"type": "dict", "default": {}},  # this module's result of the engine that is replaced
    "slowdown_max": {"type": "float", "default": 0.0},  # so many times slower than that one may it be
    "ttft_floor_ms": {"type": "float", "default": 0.0},  # a first token within so many milliseconds is never too late
}


def objections(canary: dict[str, Any], before: dict[str, Any], slowdown: float, floor_ms: float) -> list[str]:
    """What speaks against an engine, also measured against the one it replaces; times in ms, rates in tokens/s."""
    if canary["problems"]:
        return list(canary["problems"])
    found: list[str] = []
    if canary["ttft_ms"] is None:
        return found
    old_ttft, old_rate = before.get("ttft_ms"), before.get("tokens_per_second")
    if old_ttft and canary["ttft_ms"] > max(old_ttft * slowdown, floor_ms):
        found.append(f"its first token comes after {canary['ttft_ms']} ms, before it was {old_ttft} ms")
    if old_rate and canary["tokens_per_second"] * slowdown < old_rate:
        found.append(f"it makes {canary['tokens_per_second']} tokens/s, before it were {old_rate}")
    return found


def verdict(canary: dict[str, Any], before: dict[str, Any], against: list[str]) -> dict[str, Any]:
    """`failed` and `msg`: why it is refused, or how fast a canary is."""
    measured = canary["ttft_ms"] is not None
    if against:
        who = "the canary" if measured else "it"
        return {"failed": True, "msg": f"{who} is refused: {'; '.join(against)}"}
    if not measured:
        return {}
    told = f"canary: first token after {canary['ttft_ms']} ms, {canary['tokens_per_second']} tokens/s"
    if before.get("ttft_ms"):
        told += f" (before: {before['ttft_ms']} ms, {before['tokens_per_second']} tokens/s)"
    return {"msg": told}


class ActionModule(HostProgram):
    """Changes nothing."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, given = self.validate_argument_spec(argument_spec={**ARGUMENTS, **JUDGING})
        found = {**result, **self.ask("vllm_canary", {name: given[name] for name in ARGUMENTS}, task_vars)}
        if found.get("failed") or not given["must_pass"]:
            return found
        against = objections(found, given["before"], given["slowdown_max"], given["ttft_floor_ms"])
        return {**found, **verdict(found, given["before"], against)}
