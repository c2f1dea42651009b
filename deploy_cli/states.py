"""Accepted states: what a site was when it was judged, how two differ, and which one a rollback returns to. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from deploy_cli.errors import Problem, UsageError

PLACES = ("ansible_host", "ansible_connection")
"""How a host is reached belongs to the inventory at hand, not to a state."""


def secret_names(specs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Variables that hold a secret: those whose spec says no_log, of itself or of a part."""
    return {name for role in specs.values() for name, option in role.items() if _secret(option)}


def _secret(option: Any) -> bool:
    if isinstance(option, Mapping):
        return bool(option.get("no_log")) or any(_secret(part) for part in (option.get("options") or {}).values())
    return False


def keep(values: Mapping[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """Variables of one host that a state keeps: plain data, no secrets, nothing of how the host is reached."""
    left_out = {*secrets, *PLACES}
    return {name: value for name, value in values.items() if name not in left_out and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False  # a template that waits for a host's facts
    return True


def content(state: Mapping[str, Any]) -> str:
    """Digest of what a state is, whenever and by whomever it was made; two equal ones need no rollback."""
    told = {key: state.get(key) for key in ("groups", "models", "instances", "images", "keys")}
    # The images themselves are told by their ids.
    told["settings"] = {
        host: {name: value for name, value in values.items() if name != "images_overrides"}
        for host, values in state["settings"].items()
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def merged(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """States of all hosts as one list, newest first, each once.

    Each host numbers the states that it saw, so the highest number of a state counts: a host that came later saw fewer.
    Times are those of the machines that deployctl ran on, and only decide where no number does.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for state in found:
        if state.get("id"):
            same = by_id.get(str(state["id"]), {})
            number = max(int(state.get("number", 0)), int(same.get("number", 0)))
            by_id[str(state["id"])] = {**state, "number": number}
    return sorted(by_id.values(), key=lambda s: (s["number"], str(s.get("at")), str(s["id"])), reverse=True)


def choose(states: list[dict[str, Any]], wanted: str, current: str | None) -> dict[str, Any]:
    """Return the state to go back to. UsageError when there is none, or `wanted` is not one that was accepted.

    states: newest first. wanted: an id, or the beginning of one; empty for the last accepted state. current: id of the
    state that the hosts are in now, None when they are in none. Where that is the newest state, the newest accepted one
    that is not as it is taken; otherwise something came after it, and the newest accepted one is.
    """
    accepted = [state for state in states if state["verdict"] == "accepted"]
    listed = ", ".join(str(state["id"]) for state in accepted[:10]) or "none"
    if wanted:
        named = [state for state in states if str(state["id"]) == wanted] or [
            state for state in states if str(state["id"]).startswith(wanted)
        ]
        if len(named) != 1:
            raise UsageError(
                f"{'no' if not named else 'more than one'} state is called {wanted}", f"accepted: {listed}"
            )
        if named[0]["verdict"] != "accepted":
            raise UsageError(f"state {named[0]['id']} was {named[0]['verdict']}", f"accepted: {listed}")
        return named[0]
    here = next((state["content"] for state in states[:1] if state["id"] == current), None)
    left = [state for state in accepted if state["content"] != here]
    if left:
        return left[0]
    if accepted:
        raise UsageError(
            f"the site is in its only accepted state, {accepted[0]['id']}", "`deployctl history` lists all states"
        )
    raise UsageError("no accepted state is recorded on these hosts", "`deployctl up` records one when it is accepted")


def misfits(state: Mapping[str, Any], groups: Mapping[str, list[str]], inventory: str) -> list[Problem]:
    """What of the inventory's groups is not as in the state: a rollback moves settings, not machines."""
    found = []
    for name, hosts in state["groups"].items():
        now = list(groups.get(name, []))
        if sorted(now) != sorted(hosts):
            what = f"group `{name}` holds {', '.join(now) or 'no host'}, in {state['id']} it held {', '.join(hosts)}"
            found.append(Problem(inventory, what, "put the hosts back into their groups for the rollback"))
    return found


def settings_for(
    state: Mapping[str, Any], host: str, now: Iterable[str], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (recorded values, raw defaults) that make a host's variables those of the state.

    now: variables that the inventory sets today; one that the state does not know goes back to its role's default.
    """
    recorded = dict(state["settings"].get(host, {}))
    return recorded, {name: defaults[name] for name in now if name not in recorded and name in defaults}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what differs between two states, a line each; values of `env` never stand in it."""
    found = []
    for key, head in (("images", "image"), ("keys", "key"), ("models", "model"), ("instances", "instance")):
        found += _named(head, _by_name(before.get(key)), _by_name(after.get(key)))
    for host in sorted({*before["settings"], *after["settings"]}):
        old, new = (_without_models(state["settings"].get(host, {})) for state in (before, after))
        found += _named(f"{host}:", old, new)
    # Digests of what mostly follows from the rest: they say least, and come last.
    for key, head in (("gateway", "gateway configuration"), ("deployctl", "deployctl")):
        old, new = ({k: _digest(v) for k, v in _by_name(state.get(key)).items()} for state in (before, after))
        found += _named(head, old, new)
    return found


def _digest(value: Any) -> Any:
    return value[:12] if isinstance(value, str) else value


def _without_models(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "models"}


def _by_name(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {str(e["name"] if isinstance(e, Mapping) else e): e for e in value}
    return dict(value) if isinstance(value, Mapping) else {} if value is None else {"": value}


def _named(head: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for name in dict.fromkeys([*old, *new]):
        title = f"{head} {name}".rstrip()
        if name not in new:
            found.append(f"{title}: gone")
        elif name not in old:
            found.append(f"{title}: new")
        elif old[name] != new[name]:
            found += _changed(title, old[name], new[name])
    return found


def _changed(title: str, old: Any, new: Any) -> list[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [f"{title}: {_short(old)} -> {_short(new)}"]
    found = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            told = "changed" if key == "env" else f"{_short(old.get(key))} -> {_short(new.get(key))}"
            found.append(f"{title}: {key} {told}")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    return text if len(text) <= 120 else f"{text[:117]}..."
