"""The runs folder: one folder a run, what is written of a run, and which folders go."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deploy_cli import outcome as bookkeeping
from deploy_cli import paths
from deploy_cli.outcome import Outcome, prune, write_run
from deploy_cli.request import Request

SECRET = "s3cret-of-a-test"


def made(runs: Path, number: int, command: str = "up", **data: Any) -> Path:
    folder = runs / f"20260101T{number:06d}-{command}"
    folder.mkdir(parents=True)
    known = {"command": command, "inventory_path": "/i", "ended": "x", "pid": 1, **data}
    (folder / "run.json").write_text(json.dumps(known))
    return folder


def test_old_runs_go_but_never_the_last_accepted_nor_one_that_runs(tmp_path: Path) -> None:
    older = made(tmp_path, 1)
    (older / "acceptance.json").write_text('{"verdict": "accepted"}')
    accepted = made(tmp_path, 2)
    (accepted / "acceptance.json").write_text('{"verdict": "accepted"}')
    running = made(tmp_path, 3, ended=None, pid=os.getpid())
    dead = made(tmp_path, 4, ended=None, pid=2**22 + 1)
    looks = [made(tmp_path, number, "status") for number in range(10, 15)]
    newest = [made(tmp_path, number) for number in (20, 21)]
    (tmp_path / "notes").mkdir()
    assert set(prune(tmp_path, keep_runs=2, keep_looks=3)) == {older, dead, *looks[:2]}
    assert {accepted, running, *newest, *looks[2:], tmp_path / "notes"} == set(tmp_path.iterdir())


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_given: "20260101T000000")
    made_now = [paths.new_run_dir("up", tmp_path) for _ in range(11)]
    assert [folder.name for folder in paths.run_dirs(tmp_path)] == [folder.name for folder in reversed(made_now)]


def test_many_at_once_get_a_folder_each(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(paths.new_run_dir("up", tmp_path))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20


def test_the_last_judged_run_of_an_inventory(tmp_path: Path) -> None:
    inventory = tmp_path / "site.yml"
    mine = made(tmp_path / "runs", 1, inventory_path=str(inventory))
    bare = made(tmp_path / "runs", 2)
    (bare / "run.json").unlink()
    (bare / "plan.json").write_text(json.dumps({"inventory": str(inventory)}))
    other = made(tmp_path / "runs", 3)
    assert bookkeeping.last_judged(tmp_path / "runs", inventory) is None
    for folder in (mine, bare, other):
        (folder / "acceptance.json").write_text("{}")
    assert bookkeeping.last_judged(tmp_path / "runs", inventory) == bare


def test_run_json_is_written_whole(tmp_path: Path) -> None:
    request = Request("up", tmp_path / "i.yml", extra_vars=(SECRET,), vault_pass=SECRET)
    write_run(None, tmp_path, request, time.time())
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    write_run(Outcome(request, 0, "ok"), tmp_path, request, time.time())
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o600
    assert SECRET not in (tmp_path / "run.json").read_text() + repr(request)
