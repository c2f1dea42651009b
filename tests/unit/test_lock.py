"""The site lock: one changing run per site, and a dead holder is no obstacle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from loading import loaded

from deploy_cli.errors import ExitCode, SiteLockedError
from deploy_cli.lock import has_died, lock_file, owner, site_lock

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys, time
from pathlib import Path
from deploy_cli.lock import site_lock
with site_lock(Path(sys.argv[1]), "up", Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    file = tmp_path / "site.yml"
    file.write_text("all: {}\n")
    return file


def hold(inventory: Path, runs: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(inventory), str(runs)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()


def test_a_second_run_is_refused_and_told_who_holds_the_site(inventory: Path, tmp_path: Path) -> None:
    holder = hold(inventory, tmp_path / "runs")
    try:
        with pytest.raises(SiteLockedError) as refused, site_lock(inventory, "down", tmp_path / "runs"):
            pass
        assert f"(pid {holder.pid}) runs `deployctl up {inventory}` since 20" in str(refused.value)
        assert refused.value.exit_code == ExitCode.REFUSED
    finally:
        end(holder)


def test_a_killed_holder_is_no_obstacle(inventory: Path, tmp_path: Path) -> None:
    end(hold(inventory, tmp_path / "runs"))
    file = lock_file(inventory, tmp_path / "runs")
    assert '"up"' in file.read_text()  # left behind
    with site_lock(inventory, "down", tmp_path / "runs"):
        assert '"down"' in file.read_text()
        assert f'"pid": {os.getpid()}' in file.read_text()
    assert file.read_text() == ""


def test_the_lock_is_free_again_after_an_error(inventory: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), site_lock(inventory, "up", tmp_path):
        raise ValueError("boom")
    with site_lock(inventory, "up", tmp_path):
        pass


def test_another_site_is_free(inventory: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "site.yml"  # the same name in another folder
    with site_lock(inventory, "up", tmp_path), site_lock(other, "up", tmp_path):
        pass


def test_a_link_to_the_inventory_is_the_same_site(inventory: Path, tmp_path: Path) -> None:
    link = tmp_path / "site-link.yml"
    link.symlink_to(inventory)
    assert lock_file(inventory, tmp_path).name.split("-")[-1] == lock_file(link, tmp_path).name.split("-")[-1]
    with site_lock(inventory, "up", tmp_path), pytest.raises(SiteLockedError), site_lock(link, "up", tmp_path):
        pass


def test_a_mark_tells_a_run_that_lives_from_one_that_has_died() -> None:
    mine = owner("20261121T000000-up", "up", os.getpid())
    assert not has_died(mine)
    assert has_died({**mine, "born": "another boot/1"})
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert has_died(owner("r", "up", ended.pid) | {"born": "then"})
    assert not has_died({**mine, "control": "elsewhere", "born": "then"})  # of other machines nothing is known


def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: ModuleType = loaded("playbooks/library/site_lock.py")
    monkeypatch.setattr(module, "MARK", tmp_path / "operator.json")
    return module


def test_a_host_belongs_to_one_run_until_its_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = marks(tmp_path, monkeypatch)
    first, second = owner("one", "up", os.getpid()), owner("two", "up", os.getpid())
    assert module.take(first, 60, "") is None
    assert module.take(first, 60, "") is None  # renewed
    assert module.take(second, 60, "")["run"] == first["run"]
    assert module.take(second, 60, str(first["run"])) is None  # it was told that the first has ended
    assert module.take(first, 60, "")["run"] == second["run"]
    os.utime(module.MARK, (0, time.time() - 61))
    assert module.take(first, 60, "") is None
    os.utime(module.MARK, (0, time.time() + 3600))  # the clock was set back since
    assert module.take(second, 60, "") is None
    module.MARK.write_text("{")
    assert module.holder(60) is None
