"""What is refused before anything runs: folders that are none, runs that cannot be read; and a stop at a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from test_cli import deployctl, site
from test_history import Base
from test_states import load

from deploy_cli import commands
from deploy_cli.bundle import pack

__all__ = ["site"]


@pytest.mark.parametrize("flag", ["-J", "-K"])
def test_a_stop_at_a_prompt_is_130(
    flag: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_given: Any, **_more: Any) -> str:
        raise click.Abort

    monkeypatch.setattr("click.prompt", stopped)
    assert deployctl(monkeypatch, "up", site, flag) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("make", ["file", "nowhere"])
@pytest.mark.parametrize("command", ["up", "plan"])
def test_a_runs_folder_that_is_none(
    make: str,
    command: str,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = Path("/proc/nowhere") if make == "nowhere" else tmp_path / "file"
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("DEPLOYCTL_RUNS_DIR", str(runs))
    assert deployctl(monkeypatch, command, site) == 2
    told = capsys.readouterr().err
    assert f"runs cannot be kept in {runs}" in told and "hint: DEPLOYCTL_RUNS_DIR" in told


@pytest.mark.parametrize(
    ("folder", "where"),
    [
        ("file/sub", "file"),
        ("inventories", "inventories/lab.yml"),
        ("deep", "deep/group_vars/lab/models.yml"),
        ("/proc/nowhere", "/proc"),
    ],
)
def test_init_says_where_it_cannot_write_before_it_looks(
    folder: str, where: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked(*_given: Any, **_more: Any) -> Any:
        raise AssertionError("hosts were looked at")

    Path("file").write_text("mine")
    Path("inventories/lab.yml").mkdir()
    Path("deep/group_vars/lab/models.yml").mkdir(parents=True)
    monkeypatch.setattr(commands, "_ask", looked)
    monkeypatch.setattr(commands, "check_tags", lambda _request: None)
    assert deployctl(monkeypatch, "init", "lab", "host", "--inventories", folder) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"deployctl: {where} ") and "--inventories" in told


@pytest.mark.parametrize("text", ['{"version": 99}', '{"version": 1}', '{"version": 1, "checks": [{}]}', "{", ""])
def test_a_run_that_cannot_be_reported_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.plugins.action.ActionBase", Base)
    module = load("playbooks/action_plugins/deployctl_report.py").ActionModule()
    module.validate_argument_spec = lambda **_given: (None, {"run": str(tmp_path)})
    (tmp_path / "acceptance.json").write_text(text)
    result = module.run(None, {})
    assert result["failed"]
    (problem,) = result["problems"]
    assert str(tmp_path) in problem["where"] and problem["what"] and problem["hint"]
    assert json.dumps(result)
    assert [file.name for file in tmp_path.iterdir()] == ["acceptance.json"]


def test_a_bundle_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    assert pack.refused(tmp_path / "x.tar", force=False, releases=[]) == []
    assert list(tmp_path.iterdir()) == []
    for folder in (Path("/proc"), tmp_path / "missing"):
        (problem,) = pack.refused(folder / "x.tar", force=False, releases=[])
        assert problem.where == str(folder)
