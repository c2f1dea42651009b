"""Hosts that do not answer: neither history nor rollback takes their silence for a site without a past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_states import ROOT, load, state

from deploy_cli import commands, history
from deploy_cli.commands import Output
from deploy_cli.outcome import Outcome, judge
from deploy_cli.progress import Progress, to_failure
from deploy_cli.request import Request

GROUPS = {"serving": ["h1", "h2"], "gateway": ["h1"], "telemetry": ["h3"]}
GONE = {"unreachable": True, "msg": "ssh: connect to host h2 port 22: Connection refused"}
BROKEN = {"failed": True, "msg": "no  python3\nthere", "module_stdout": "part of a state"}


def asked(**answers: Any) -> dict[str, Any]:
    return {host: {"site_kept": answers[host]} if host in answers else {} for host in ("h1", "h2", "h3")}


def test_who_was_asked_and_is_silent_is_named_and_who_was_not_asked_is_not() -> None:
    kept, looks, silent = history.gather(asked(h1={"states": [state(1)]}, h2=GONE), GROUPS)
    assert ([one["id"] for one in kept], looks, silent) == ([state(1)["id"]], {}, {"h2": "unreachable"})
    assert history.gather(asked(h1={"states": []}, h2=BROKEN), GROUPS)[2] == {"h2": "no python3 there"}
    both = {"h1": {"site_kept": {"states": [state(1)]}, "site_seen": BROKEN}, "h2": {}, "h3": {}}
    assert history.gather(both, GROUPS)[2] == {"h1": "no python3 there"}
    for words in ("no such command\nnote", "Traceback (most recent call last):\n  x\nno such command"):
        odd = {"msg": "MODULE FAILURE", "module_stderr": words}
        assert history.gather(asked(h1=odd), GROUPS)[2] == {"h1": "no such command"}
    assert history.gather(asked(h1={"states": []}, h3={"skipped": True}), GROUPS)[2] == {}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("known", [[], [state(1)]])
def test_history_names_the_silent_and_ends_with_3(
    known: list[Any], as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = history.document(known, None, {"h2": "unreachable"})
    monkeypatch.setattr(commands, "_ask", lambda request, *_given, **_more: (Outcome(request, 0, "ok"), told))
    assert commands.history(Request("history", Path("i.yml")), Output(as_json=as_json)) == 3
    said = capsys.readouterr()
    assert "no answer from h2 (unreachable)" in said.err
    assert "no state is recorded" not in said.out
    assert (state(1)["id"] in said.out) == bool(known)
    if as_json:
        assert json.loads(said.out)["unseen"] == {"h2": "unreachable"}


def test_an_acceptance_makes_nobody_forget_which_state_the_hosts_are_in() -> None:
    told = {"run": "r", "look": {"a": 1}}
    looks = {"h1": {"look": {"a": 1}, "recorded": None, "accepted": told}}
    assert (history.current(looks), history.current(looks, "accepted")) == (None, "r")
    looks["h1"]["look"] = {"a": 2}
    assert history.current(looks, "accepted") is None


def test_no_state_on_hosts_that_all_answered_is_no_fault() -> None:
    assert history.lines(history.document([], None)) == ["no state is recorded on these hosts"]


class Base:
    """Stands in for Ansible's ActionBase."""

    def run(self, _tmp: Any, _task_vars: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("answers", [{"h1": GONE, "h2": GONE}, {"h1": {"states": [state(1)]}, "h2": GONE}])
def test_a_rollback_does_not_begin_while_a_host_is_silent(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.plugins.action.ActionBase", Base)
    module = load("playbooks/action_plugins/deployctl_rollback.py").ActionModule()
    result = module.run(None, {"hostvars": asked(**answers), "groups": GROUPS})
    assert result["failed"] and "problems" not in result
    assert "h2 (unreachable)" in result["msg"] and "--limit" in result["hint"]
    progress = Progress()
    progress._failures.append(to_failure({"host": "localhost", "task": "State is chosen", "res": result}))
    silent = [host for host, answer in answers.items() if answer == GONE]
    code, _status, message, _hint = judge(Request("rollback", Path("i.yml")), progress, 2)
    assert (code, message) == (3, f"failed on {', '.join(silent)}")


def test_a_state_that_is_not_known_may_be_on_a_silent_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.plugins.action.ActionBase", Base)
    monkeypatch.setenv("DEPLOYCTL_STATES", "a,b")
    module = load("playbooks/action_plugins/deployctl_history.py").ActionModule()
    module._task = type("Task", (), {"args": {}})
    silent = module.run(None, {"hostvars": asked(h1={"states": [state(1)]}, h2=GONE), "groups": GROUPS})
    assert silent["unseen"] == ["h2"] and "h2 (unreachable)" in silent["msg"] and "problems" not in silent
    heard = module.run(None, {"hostvars": asked(h1={"states": [state(1)]}), "groups": GROUPS})
    assert heard["problems"][0]["what"] == "no state is called a"


def test_the_play_goes_on_to_say_who_failed() -> None:
    """A play in which every host failed would be the last one, and its reason is hidden by no_log."""
    (play,) = yaml.safe_load((ROOT / "playbooks/plays/kept.yml").read_text())
    (block,) = play["tasks"]
    assert play["ignore_unreachable"] and block["rescue"]
    assert [task["register"] for task in block["block"]] == ["site_kept", "site_seen"]
