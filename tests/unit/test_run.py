"""Runs of a real ansible-playbook on tiny playbooks: run folder, exit codes, secrets, and stopping."""

from __future__ import annotations

import json
import locale
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_plays import PLAYS

from deploy_cli import paths
from deploy_cli.display import Display
from deploy_cli.outcome import Outcome
from deploy_cli.progress import Progress
from deploy_cli.request import Request, environment, extra_vars_files, playbook_tags, with_localhost
from deploy_cli.run import _kept, descendants, execute

SECRET = "s3cret-of-a-test"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Content of our own in a folder, a runs folder beside it, and an inventory with nobody but this machine."""
    content = tmp_path / "content"
    (content / "playbooks/plays").mkdir(parents=True)
    (content / "ansible.cfg").write_text(
        "[defaults]\nlocalhost_warning = False\n[inventory]\nany_unparsed_is_failed = True\n"
    )
    for name, text in PLAYS.items():
        (content / "playbooks" / f"{name}.yml").write_text("\n".join(line[8:] for line in text.splitlines()))
    inventory = tmp_path / "site.yml"
    inventory.write_text("all: {hosts: {localhost: {ansible_connection: local, "
                         "ansible_python_interpreter: '{{ ansible_playbook_python }}'}}}\n")  # fmt: skip
    monkeypatch.setattr(paths, "content_dir", lambda: content)
    monkeypatch.setenv("DEPLOYCTL_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("A_TOKEN_OF_THE_SHELL", SECRET)
    return inventory


def run(request: Request, *, lasting: bool = True) -> tuple[Outcome, dict[str, Any]]:
    return execute(request, Display, lasting=lasting)


def all_text(folder: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_a_run_is_a_private_folder_with_log_events_and_result(site: Path) -> None:
    outcome, _found = run(Request("up", site, extra_vars=(f"word={SECRET}", "number=3")))
    assert (outcome.exit_code, outcome.status, outcome.changed) == (0, "ok", {"localhost": 2})
    folder = outcome.run_dir
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    data = json.loads((folder / "run.json").read_text())
    assert (data["command"], data["exit_code"], data["changed"]) == ("up", 0, {"localhost": 2})
    assert data["ended"]
    kinds = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert kinds[0] == "playbook_on_start"
    assert kinds[-1] == "playbook_on_stats"
    assert "TASK [Something changes]" in (folder / "stdout").read_text()
    # What came by -e, and what the shell's environment holds, stays nowhere but where the playbook put it.
    (folder / "vars.json").unlink()
    assert SECRET not in all_text(folder)
    for file in folder.rglob("*"):
        assert file.parent != folder or not stat.S_IMODE(file.stat().st_mode) & 0o077, file


def test_extra_vars_mean_what_they_mean_to_ansible(site: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.yml"
    given.write_text("word: from-file\nlist: [1, 2]\n")
    values = (f"@{given}", '{"number": 4}', "word='two words {{ 1 + 1 }}'")
    outcome, _found = run(Request("up", site, extra_vars=values))
    assert outcome.run_dir is not None
    assert json.loads((outcome.run_dir / "vars.json").read_text()) == ["two words 2", 4, [1, 2]]


def test_the_child_never_sees_extra_vars_in_argv(site: Path, tmp_path: Path) -> None:
    words = extra_vars_files(Request("up", site, extra_vars=(f"word={SECRET}", f'{{"a": "{SECRET}"}}')), tmp_path)
    assert not any(SECRET in word for word in words)
    for word in words:
        assert stat.S_IMODE(Path(word[1:]).stat().st_mode) == 0o600


def test_a_second_look_knows_how_many_tasks_there_will_be(site: Path) -> None:
    totals: list[int | None] = []

    def display(progress: Progress) -> Display:
        totals.append(progress.total)
        return Display(progress)

    for request in (Request("up", site), Request("up", site), Request("up", site, check=True)):
        execute(request, display)
    assert totals == [None, 2, None]


def test_a_failed_host_is_3_with_its_message(site: Path) -> None:
    outcome, _found = run(Request("down", site))
    assert (outcome.exit_code, outcome.status) == (3, "failed")
    assert [(failure.host, failure.message) for failure in outcome.failures] == [("localhost", "broken on purpose")]
    assert outcome.document()["failures"][0]["task"] == "It breaks"


def test_a_run_that_fails_releases_the_hosts_that_it_has_taken(site: Path) -> None:
    outcome, _found = run(Request("swap", site))
    assert (outcome.exit_code, outcome.status) == (3, "failed")
    assert outcome.run_dir is not None
    assert not (outcome.run_dir / "taken").exists()
    assert (outcome.run_dir / "command-release").exists()
    assert SECRET not in all_text(outcome.run_dir)
    outcome, _found = run(Request("down", site))  # had taken none
    assert outcome.run_dir is not None
    assert not (outcome.run_dir / "command-release").exists()


def test_a_rejection_is_4_although_ansible_failed(site: Path) -> None:
    outcome, found = run(Request("accept", site))
    assert (outcome.exit_code, outcome.status) == (4, "rejected")
    assert found["acceptance.json"]["verdict"] == "rejected"


def test_a_run_without_a_task_is_not_a_success(site: Path) -> None:
    outcome, _found = run(Request("plan", site))
    assert (outcome.exit_code, outcome.message) == (2, "no task ran")


def test_an_inventory_that_does_not_parse_is_2_and_says_so(site: Path) -> None:
    site.write_text("all: [\n")
    outcome, _found = run(Request("up", site))
    assert outcome.exit_code == 2
    assert "site.yml" in outcome.message


def test_a_broken_playbook_is_our_own_fault(site: Path) -> None:
    (paths.content_dir() / "playbooks" / "up.yml").write_text("- hosts: localhost\n  tasks: [{no_such_module: }]\n")
    outcome, _found = run(Request("up", site))
    assert (outcome.exit_code, outcome.status) == (1, "error")


def test_a_run_that_must_leave_no_trace_leaves_none(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    outcome, _found = run(Request("up", site), lasting=False)
    assert (outcome.exit_code, outcome.run_dir) == (0, None)
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "runs").exists()


STOPPED = """
import sys
from pathlib import Path
from deploy_cli import paths, run
from deploy_cli.display import Display
from deploy_cli.request import Request
paths.content_dir = lambda: Path(sys.argv[1])
outcome, _ = run.execute(Request("wait", Path(sys.argv[2])), Display)
print(outcome.status, outcome.run_dir)
sys.exit(outcome.exit_code)
"""


@pytest.fixture
def waiting(site: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", STOPPED, str(paths.content_dir()), str(site)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def below(waiting: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Every process below ours while the long task is under way, the nearest first; the last is the task's own."""
    end = time.monotonic() + 60
    found: list[int] = []
    while time.monotonic() < end and not (found and command(found[-1]) == "sleep 59.59"):
        time.sleep(0.1)
        found = descendants(waiting.pid)
    assert command(found[-1]) == "sleep 59.59"
    yield found
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def workers_still_there(pids: list[int]) -> list[int]:
    """Which of them are ansible-playbook or a worker of it, three seconds later at most."""
    end = time.monotonic() + 3
    alive = pids
    while alive and time.monotonic() < end:
        alive = [pid for pid in alive if "ansible-playbook" in command(pid)]
        time.sleep(0.05)
    return alive


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_is_quick_says_so_and_leaves_no_worker(
    waiting: subprocess.Popen[str], below: list[int], number: signal.Signals, code: int
) -> None:
    assert len([pid for pid in below if "ansible-playbook" in command(pid)]) >= 2  # itself and a worker
    asked = time.monotonic()
    waiting.send_signal(number)
    told, _errors = waiting.communicate(timeout=20)
    assert waiting.returncode == code
    assert time.monotonic() - asked < 8
    status, folder = told.split()
    assert status == "cancelled"
    assert json.loads((Path(folder) / "run.json").read_text())["exit_code"] == code
    assert workers_still_there(below) == []


def test_a_second_stop_kills_everything_at_once(waiting: subprocess.Popen[str], below: list[int]) -> None:
    os.kill(below[0], signal.SIGSTOP)  # ansible-playbook itself hangs: the polite way does not work
    waiting.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert workers_still_there(below) == []
    assert command(below[-1]) == ""


def test_a_terminal_that_goes_away_stops_nothing(waiting: subprocess.Popen[str], below: list[int]) -> None:
    waiting.send_signal(signal.SIGHUP)
    time.sleep(1.2)
    assert waiting.poll() is None
    assert command(below[-1]) == "sleep 59.59"
    os.kill(below[-1], signal.SIGTERM)
    told, _errors = waiting.communicate(timeout=20)
    assert (waiting.returncode, told.split()[0]) == (3, "failed")  # told by the run itself: it went on to its end


UNHEARD = """
import sys
from pathlib import Path
from deploy_cli import commands, display, paths, run
from deploy_cli.request import Request
paths.content_dir = lambda: Path(sys.argv[1])
sys.stdin.read()
console = commands._console()
outcome, _ = run.execute(Request("up", Path(sys.argv[2])), lambda progress: display.PlainDisplay(progress, console))
sys.exit(outcome.exit_code if outcome.status == "ok" else 9)
"""


def test_who_reads_no_more_stops_nothing(site: Path) -> None:
    words = [sys.executable, "-c", UNHEARD, str(paths.content_dir()), str(site)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()  # as `| head` does once it has its lines
        process.stdin.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_a_full_disk_loses_lines_of_the_log_and_nothing_else(tmp_path: Path) -> None:
    with _kept(Path("/dev/full")) as keep:
        keep("lost")
    with _kept(tmp_path / "log") as keep:
        keep("kept")
    assert (tmp_path / "log").read_text() == "kept\n"


def test_the_environment_of_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_HOST_KEY_CHECKING", raising=False)
    found = environment(tmp_path, Request("up", tmp_path))
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert found["ANSIBLE_HOST_KEY_CHECKING"] == "True"  # ansible-runner would turn it off
    assert found["PYTHONDONTWRITEBYTECODE"] == ""


@pytest.mark.parametrize(
    ("given", "passed"), [("C", "C.UTF-8"), ("xx_XX.UTF-8", "C.UTF-8"), ("C.UTF-8", None), ("", None)]
)
def test_a_locale_that_ansible_does_not_take_is_replaced(
    given: str, passed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LC_CTYPE", raising=False)
    monkeypatch.setenv("LC_ALL", given)
    before = locale.setlocale(locale.LC_ALL)
    assert environment(tmp_path, Request("up", tmp_path)).get("LC_ALL") == passed
    assert locale.setlocale(locale.LC_ALL) == before


def test_another_callback_in_the_users_shell_does_not_cost_the_events(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "json")
    assert run(Request("up", site))[0].status == "ok"


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("node1", "node1,localhost"),
        ("node1:node2", "node1,node2,localhost"),
        ("!node2", "all,!node2,localhost"),
        ("node[1:3]", "node[1:3],localhost"),
        ("localhost", "localhost"),
        ("serving:&rack1", "serving:&rack1"),
    ],
)
def test_a_limit_keeps_the_host_that_plans(given: str, passed: str) -> None:
    assert with_localhost(given) == passed


def test_the_tags_of_a_playbook_are_known(site: Path) -> None:
    assert playbook_tags(Request("up", site)) == {"change"}
