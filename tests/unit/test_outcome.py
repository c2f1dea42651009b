"""How the end of a run is judged: exit code, status and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy_cli.drift import Change
from deploy_cli.outcome import VERDICT_TASK, ansible_error, judge
from deploy_cli.progress import Failure, Progress
from deploy_cli.request import Request


def failed(**more: Any) -> Progress:
    progress = Progress()
    progress._failures.append(Failure(**{"host": "a", "task": "t", "message": "m", **more}))
    progress.results = 1
    return progress


def test_a_refused_plan_is_2_and_a_broken_plan_is_1(tmp_path: Path) -> None:
    request = Request("up", tmp_path)
    problems = ({"where": "models.yml:3", "what": "w", "hint": "h"},)
    assert judge(request, failed(action="deployctl_plan", problems=problems), 2)[:2] == (2, "refused")
    assert judge(request, failed(action="deployctl_plan"), 2)[:2] == (1, "error")
    assert judge(request, failed(), 2, signal="SIGINT")[0] == 130
    assert judge(request, Progress(), 0, signal="SIGINT")[1] == "nothing"  # it was through before the signal came


def test_a_plan_refused_after_changes_says_so(tmp_path: Path) -> None:
    problems = ({"where": "models.yml:3", "what": "w", "hint": "h"},)
    progress = failed(action="deployctl_plan", problems=problems)
    progress.stats = None
    progress.changed["gpu1"] = 7
    code, status, message, _hint = judge(Request("up", tmp_path), progress, 2)
    assert (code, status) == (3, "failed")
    assert "nothing was touched" not in message


@pytest.mark.parametrize("task", ["What was rejected is taken back everywhere", "What was set aside is known"])
def test_a_rejection_that_was_not_taken_back_everywhere_is_a_failure(tmp_path: Path, task: str) -> None:
    request = Request("up", tmp_path)
    progress = failed(task=VERDICT_TASK)
    assert judge(request, progress, 2, verdict="rejected")[:2] == (4, "rejected")
    progress._failures.append(Failure(host="front", task=task, message="gpu2: m"))
    code, status, message, hint = judge(request, progress, 2, verdict="rejected")
    assert (code, status) == (3, "failed")
    assert "rejected" in message and "front" in message and "rollback" in hint
    verdict = (Path(__file__).resolve().parents[2] / "playbooks/plays/verdict.yml").read_text()
    assert f"- name: {VERDICT_TASK}\n" in verdict


def test_silence_of_ansible_is_our_own_fault(tmp_path: Path) -> None:
    code, status, message, _hint = judge(Request("up", tmp_path), Progress(), 127)
    assert (code, status) == (1, "error")
    assert "127" in message


def test_a_dry_run_whose_second_plan_is_refused_has_found_a_difference(tmp_path: Path) -> None:
    progress = failed(action="deployctl_plan", problems=({"where": "gpu1", "what": "a GPU is lost", "hint": "h"},))
    progress.changes.append(Change("gpu1", "", "GPUs", ("a GPU is lost",)))
    assert judge(Request("diff", tmp_path), progress, 2)[:2] == (5, "drifted")
    assert judge(Request("up", tmp_path), progress, 2)[0] != 5


def test_what_ansible_says_before_it_has_begun(tmp_path: Path) -> None:
    def ended(log: str) -> tuple[int, str]:
        return judge(Request("up", tmp_path), Progress(), 1, log=log)[::2]

    assert ansible_error("ERROR: Ansible requires the locale encoding to be UTF-8") == (
        "Ansible requires the locale encoding to be UTF-8"
    )
    frames = 'Traceback (most recent call last):\n  File "/a.py", line 1, in <module>\n    x()\n'
    first = f"{frames}ValueError: no\n\nThe above exception was the cause:\n\n{frames}"
    assert ended(f"{first}ansible.errors.AnsibleOptionsError: X has an invalid value\n") == (
        2,
        "X has an invalid value",
    )
    code, told = ended(f"{first}KeyError: 'x'\n")
    assert code == 1 and told.endswith("Traceback: KeyError: 'x'") and "File" not in told
