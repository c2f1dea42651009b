"""Every file of tests/cases/plan is one site, with the problems or the plan that must come of it."""

from pathlib import Path

import pytest
from plan_site import CASES, case, mismatches, plan, secrets_of, write

from deploy_cli.errors import Problem, render_problems

NAMES = sorted(p.name for p in CASES.glob("*.yml"))


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = case(name)
    write(tmp_path, data.get("files", {}))
    monkeypatch.chdir(tmp_path)
    outcome = plan(tmp_path)
    assert mismatches(data, outcome) == []
    problems: list[Problem] = outcome if isinstance(outcome, list) else outcome.warnings
    text = render_problems(problems, "local.yml")
    for secret in secrets_of(data.get("files", {})):
        assert secret not in text


def test_there_are_enough_cases() -> None:
    refused = [name for name in NAMES if "problems" in case(name)]
    assert len(refused) >= 35
    assert len(NAMES) - len(refused) >= 5


def test_every_case_says_what_it_is_about() -> None:
    for name in NAMES:
        data = case(name)
        assert data["about"]
        assert set(data) <= {"about", "files", "problems", "plan", "warnings", "ansible"}, name
        assert ("problems" in data) != ("plan" in data), name
