"""The command line: what is typed becomes exactly this request; what is wrong is said once, with its exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy_cli import cli, commands, lock, paths
from deploy_cli.commands import Output
from deploy_cli.outcome import Outcome
from deploy_cli.request import Request
from deploy_cli.summary import show

PLAYBOOK = """\
- name: First
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Something changes
      ansible.builtin.command: "true"
      tags: [vllm]
    - name: It is purged
      ansible.builtin.command: "true"
      tags: [never, purge]
"""
REFUSED = """\
- name: First
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: It is planned
      deployctl_plan:
"""
REFUSING = """\
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        problem = {"where": "models.yml:3", "what": "two models of one name", "hint": "rename one", "severity": "error"}
        return {"failed": True, "msg": "refused", "problems": [problem, problem]}
"""
ENV = """\
- name: First
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Values are told
      ansible.builtin.copy:
        content: '{"OPENAI_BASE_URL": "http://x/v1", "OPENAI_API_KEY": "a key"}'
        dest: "{{ lookup('env', 'DEPLOYCTL_RUN_DIR') }}/env.json"
        mode: "0600"
      no_log: true
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny content, an empty runs folder, and an inventory with this machine only."""
    playbooks = tmp_path / "content" / "playbooks"
    (playbooks / "action_plugins").mkdir(parents=True)
    (playbooks / "action_plugins" / "deployctl_plan.py").write_text(REFUSING)
    (tmp_path / "content" / "ansible.cfg").write_text("[defaults]\nlocalhost_warning = False\n")
    for name, text in {"up": PLAYBOOK, "down": PLAYBOOK, "plan": REFUSED, "env": ENV}.items():
        (playbooks / f"{name}.yml").write_text(text)
    inventory = tmp_path / "inventories" / "local.yml"
    inventory.parent.mkdir()
    python = "ansible_python_interpreter: '{{ ansible_playbook_python }}'"
    inventory.write_text(f"all: {{hosts: {{localhost: {{ansible_connection: local, {python}}}}}}}\n")
    monkeypatch.setattr(paths, "content_dir", lambda: tmp_path / "content")
    monkeypatch.setenv("DEPLOYCTL_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return inventory


def deployctl(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the program as the shell would; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["deployctl", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


Started = tuple[Request, Output, Callable[..., int]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """Every request that the command line would have started."""
    found: list[Started] = []

    def start(request: Request, output: Output, command: Callable[..., int]) -> int:
        found.append((request, output, command))
        return 0

    monkeypatch.setattr(commands, "start", start)
    return found


HERE = Path("i.yml")


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("plan i.yml", Request("plan", HERE)),
        ("up i.yml", Request("up", HERE)),
        ("up -l node1 -t vllm -t haproxy,jaeger --skip-tags docker -C -D i.yml",
         Request("up", HERE, limit="node1", tags=("vllm", "haproxy,jaeger"), skip_tags=("docker",),
                 check=True, diff=True)),
        ("up i.yml -e a=1 -e @b.yml -vvv -f 3",
         Request("up", HERE, extra_vars=("a=1", "@b.yml"), verbosity=3, forks=3)),
        ("up i.yml -J -K --vault-password-file p",
         Request("up", HERE, ask_vault_pass=True, ask_become_pass=True, vault_password_file=("p",))),
        ("accept i.yml --limit gw", Request("accept", HERE, limit="gw")),
        ("status i.yml", Request("status", HERE)),
        ("down i.yml", Request("down", HERE)),
        ("down i.yml --purge", Request("down", HERE, tags=("all", "purge"))),
        ("down i.yml --purge -t vllm", Request("down", HERE, tags=("vllm", "purge"))),
        ("env i.yml", Request("env", HERE)),
        ("report i.yml", Request("report", HERE)),
        ("doctor i.yml -l gw", Request("doctor", HERE, limit="gw")),
        ("diff i.yml", Request("diff", HERE, check=True, diff=True)),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_asked(
    words: str, request_: Request, started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deployctl(monkeypatch, *words.split()) == 0
    request, output, command = started[0]
    assert request == request_
    assert output == Output(debug=request_.verbosity >= 2)
    own = {"status", "doctor", "diff", "env", "report"}
    assert command is (getattr(commands, request.command) if request.command in own else commands.site_run)


def test_output_flags(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    deployctl(monkeypatch, "up", "i.yml", "--json", "-q", "--show-command", "-vv")
    assert started[0][1] == Output(as_json=True, quiet=True, show_command=True, debug=True)


def test_a_report_of_a_chosen_run(started: list[Started], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deployctl(monkeypatch, "report", "i.yml", "--run", tmp_path)
    assert started[0][0].environment == (("DEPLOYCTL_REPORT_RUN", str(tmp_path.resolve())),)


def test_every_command_has_its_playbook() -> None:
    for name in set(cli.cli.commands) - {"completion"}:
        assert paths.playbook(name).is_file(), name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("up", "ansible-playbook -i {i} {p}/up.yml"),
        ("down --purge", "ansible-playbook -i {i} {p}/down.yml --tags all,purge"),
        ("up -l node1 -C -D -vv", "ansible-playbook -i {i} {p}/up.yml --limit node1,localhost --check --diff -vv"),
        ("up -K -J -f 5", "ansible-playbook -i {i} {p}/up.yml --forks 5 --ask-vault-pass --ask-become-pass"),
        ("up -e {{'a':1}} -e @x", "ansible-playbook -i {i} {p}/up.yml -e '{{'\"'\"'a'\"'\"':1}}' -e @x"),
    ],
)
def test_show_command_prints_the_line_and_touches_nothing(
    words: str, line: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = words.format().split()
    before = sorted(site.parents[1].rglob("*"))
    assert deployctl(monkeypatch, command, site, *rest, "--show-command") == 0
    shown = capsys.readouterr().out
    assert shown == "ANSIBLE_CONFIG=content/ansible.cfg " + line.format(i=site, p="content/playbooks") + "\n"
    assert sorted(site.parents[1].rglob("*")) == before


def test_in_the_checkout_the_line_needs_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.content_dir())
    line = Request("up", Path("inventories/local.yml")).command_line()
    assert line == "ansible-playbook -i inventories/local.yml playbooks/up.yml"


def test_a_wrong_inventory_names_the_near_one(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", "inventories/locl.yml") == 2
    told = capsys.readouterr()
    assert told.err == (
        "deployctl: there is no inventory inventories/locl.yml\nhint: did you mean inventories/local.yml?\n"
    )
    assert told.out == ""
    assert not (site.parents[1] / "runs").exists()


def test_an_error_with_json_is_one_document(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", "inventories/locl.yml", "--json") == 2
    assert json.loads(capsys.readouterr().out)["status"] == "refused"


def test_a_name_that_the_terminal_has_no_letters_for_is_told(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    (site.parent / "ü.yml").write_text("all: {}\n")
    assert deployctl(monkeypatch, "plan", site.parent / "ü.yml", "--show-command") == 0
    assert b"\\xfc.yml" in raw.getvalue()


@pytest.mark.parametrize("words", [["up"], ["upp", "i.yml"], ["up", "i.yml", "--nonsense"], ["up", "i.yml", "-f", "0"]])
def test_wrong_usage_is_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, *words) == 2
    assert "Usage: deployctl" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["up", "--help"], ["--version"]])
def test_help_is_0(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert deployctl(monkeypatch, *words) == 0
    assert "deployctl" in capsys.readouterr().out


def test_every_command_explains_itself_by_example() -> None:
    for name, command in cli.cli.commands.items():
        assert f"deployctl {name}" in (command.help or ""), name


def test_a_whole_run_says_what_changed_and_where_it_is(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", site) == 0
    told = capsys.readouterr().out
    for words in ("changed localhost: Something changes", "localhost  ok=1 changed=1", "run folder: ", "did not run"):
        assert words in told


def test_json_is_one_document_on_stdout(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", site, "--json") == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["status"], document["exit_code"], document["changed"]) == ("ok", 0, {"localhost": 1})
    assert "== First" in told.err


def test_purge_is_a_tag(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert deployctl(monkeypatch, "down", site, "--purge", "-q", "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] == {"localhost": 2}


def test_an_unknown_tag_is_refused_before_anything_runs(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", site, "-t", "vlm") == 2
    told = capsys.readouterr().err
    assert "no task of playbooks/up.yml has the tag vlm" in told
    assert "did you mean vllm? known tags: never, purge, vllm" in told
    assert not (site.parents[1] / "runs").exists()


def test_a_refused_plan_tells_every_problem(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "plan", site) == 2
    told = capsys.readouterr().out
    assert "2 problems in" in told
    assert "Error: models.yml:3\n  two models of one name\n  Hint: rename one" in told
    assert deployctl(monkeypatch, "plan", site, "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], len(document["problems"])) == ("refused", 2)


def test_env_prints_its_lines_alone_and_leaves_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "env", site) == 0
    told = capsys.readouterr()
    assert told.out == "OPENAI_BASE_URL=http://x/v1\nOPENAI_API_KEY='a key'\n"
    assert told.err == ""
    assert not (site.parents[1] / "runs").exists()


def test_a_changing_run_is_refused_while_another_holds_the_site(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free, held = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.site_lock(site, "up", paths.runs_dir()):
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    try:
        for command in ("up", "down"):
            assert deployctl(monkeypatch, command, site) == 2
            assert "another run works on this site" in capsys.readouterr().err
        assert paths.run_dirs() == []
        assert deployctl(monkeypatch, "up", site, "--check") == 0  # only looks
    finally:
        free.set()
        holder.join()


def test_a_fault_in_a_run_is_kept_in_its_folder(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_options: Any) -> None:
        raise KeyError("lost")

    monkeypatch.delenv("DEPLOYCTL_DEBUG", raising=False)
    monkeypatch.setattr("ansible_runner.run", broken)
    assert deployctl(monkeypatch, "up", site) == 1
    folder = paths.run_dirs()[0]
    told = capsys.readouterr().err
    assert f"traceback: {folder}/error.log" in told
    assert "Traceback" not in told
    assert "KeyError: 'lost'" in (folder / "error.log").read_text()
    assert json.loads((folder / "run.json").read_text())["exit_code"] == 1


def test_a_fault_of_ours_is_one_line_and_1(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_request: Request, _output: Output) -> int:
        raise KeyError("lost")

    monkeypatch.delenv("DEPLOYCTL_DEBUG", raising=False)
    assert commands.start(Request("up", site), Output(), broken) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "KeyError" in told
    assert commands.start(Request("up", site), Output(debug=True), broken) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["word", "/abs/path.yml", "secret=x stray"])
def test_extra_vars_of_no_form_are_refused_without_repeating_them(
    value: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployctl(monkeypatch, "up", site, "-e", value) == 2
    told = capsys.readouterr().err
    assert "-e needs" in told
    assert value not in told
    assert paths.run_dirs() == []  # nothing ran, nothing is left


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert deployctl(monkeypatch, "completion", shell) == 0
    assert "_DEPLOYCTL_COMPLETE" in capsys.readouterr().out


def test_inventories_are_completed(site: Path) -> None:
    context: Any = None
    assert [item.value for item in cli._inventories(context, context, "inv")] == ["inventories/local.yml"]
    assert [item.type for item in cli._inventories(context, context, "elsewhere/")] == ["file"]


def test_help_loads_neither_ansible_nor_rich() -> None:
    slow = ("ansible_runner", "ansible", "rich", "yaml")
    code = f"import sys, deploy_cli.cli; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_end_of_a_judged_run_shows_recap_checks_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    check = {"id": "x", "title": "It answers", "ok": False, "measured": 1, "threshold": 2, "evidence": "saw it"}
    acceptance = {
        "version": 1, "verdict": "rejected", "site": "local", "base_url": "http://x/v1", "checks": [check], "load": {},
        "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00",
        "gateway": {}, "instances": [], "images": {},
    }  # fmt: skip
    request, hosts = Request("up", Path("i.yml")), {"localhost": {"ok": 3, "changed": 0}}
    outcome = Outcome(request, 4, "rejected", hosts=hosts, acceptance=acceptance, run_dir=Path("runs/x"))
    show(outcome, Console())
    told = capsys.readouterr().out
    for words in ("localhost  ok=3 changed=0  (nothing to do)", "It answers", "REJECTED", "exit code 4", "runs/x"):
        assert words in told
