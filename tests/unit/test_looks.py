"""`diff` and `doctor` through the whole command line, on playbooks of two lines: exit codes, table, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy_cli import cli, paths
from deploy_cli.doctor.lines import Line, document

DIFF = """\
- name: First
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: File is there
      ansible.builtin.copy:
        content: "new\\n"
        dest: "{{ lookup('env', 'HERE') }}/file"
        mode: "0600"
"""


DOCTOR = """\
- name: First
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Found
      ansible.builtin.copy:
        content: "{{ lookup('env', 'FOUND') }}"
        dest: "{{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/doctor.json"
        mode: "0600"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny content, an empty runs folder, and an inventory with this machine only."""
    playbooks = tmp_path / "content" / "playbooks"
    playbooks.mkdir(parents=True)
    (tmp_path / "content" / "ansible.cfg").write_text("[defaults]\nlocalhost_warning = False\n")
    (playbooks / "diff.yml").write_text(DIFF)
    (playbooks / "doctor.yml").write_text(DOCTOR)
    inventory = tmp_path / "local.yml"
    python = "ansible_python_interpreter: '{{ ansible_playbook_python }}'"
    inventory.write_text(f"all: {{hosts: {{localhost: {{ansible_connection: local, {python}}}}}}}\n")
    monkeypatch.setattr(paths, "content_dir", lambda: tmp_path / "content")
    monkeypatch.setenv("DEPLOYCTL_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return inventory


def deployctl(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the program as the shell would; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["deployctl", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_diff_finds_a_drift_changes_nothing_and_ends_with_5(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = site.with_name("file")
    file.write_text("old\n")
    file.chmod(0o600)
    assert deployctl(monkeypatch, "diff", site, "-D") == 5
    told = capsys.readouterr()
    assert f"localhost  -     File is there: {file}\n" in told.out
    assert "    -old\n    +new\n" in told.out
    assert "exit code 5" in told.err
    assert deployctl(monkeypatch, "diff", site) == 5
    assert "-old" not in capsys.readouterr().out
    assert deployctl(monkeypatch, "diff", site, "--json") == 5
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["in_step"], document["exit_code"]) == ("drifted", False, 5)
    assert [(line["host"], line["task"], line["what"]) for line in document["drift"]] == [
        ("localhost", "File is there", [str(file)])
    ]
    assert file.read_text() == "old\n"


def test_diff_in_step_is_0_and_a_host_that_failed_is_3(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = site.with_name("file")
    file.write_text("new\n")
    file.chmod(0o600)
    assert deployctl(monkeypatch, "diff", site) == 0
    assert capsys.readouterr().out == "in step: localhost\n"
    assert deployctl(monkeypatch, "diff", site, "-e", "ansible_connection=ssh ansible_host=192.0.2.1 ansible_port=1"
                     " ansible_ssh_timeout=1") == 3  # fmt: skip
    assert "unreachable" in capsys.readouterr().err


def test_diffs_line_is_a_dry_run(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "diff", site, "--show-command") == 0
    assert capsys.readouterr().out.rstrip().endswith("diff.yml --check --diff")


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("hint", 0), ("problem", 3)])
def test_doctor_ends_with_3_for_a_problem_and_with_0_for_a_hint(
    state: Any, code: int, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = document("local", [Line("node1", "disk", state, "7 GiB free", "look there")])
    monkeypatch.setenv("FOUND", json.dumps(answer))
    assert deployctl(monkeypatch, "doctor", site) == code
    told = capsys.readouterr()
    assert "disk  7 GiB free" in told.out and "hint: look there" in told.out
    assert told.err == ""
    assert deployctl(monkeypatch, "doctor", site, "--json") == code
    assert json.loads(capsys.readouterr().out) == answer


def test_a_doctor_that_said_nothing_is_told_as_a_failed_run(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.parent.joinpath("content/playbooks/doctor.yml").write_text(DOCTOR.replace("copy", "nonsense"))
    assert deployctl(monkeypatch, "doctor", site) == 1
    assert "nonsense" in capsys.readouterr().err
