"""The plan through the real `ansible-playbook playbooks/plan.yml`: the same cases, and what only Ansible can break.

About a second a run, so only the cases marked `ansible: true`; PLAN_CASES=all runs every one.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from plan_site import BASE_FILES, CASES, INVENTORY, ROOT, case, mismatches, secrets_of, write

from deploy_cli.errors import Problem
from deploy_cli.plan import Plan, sources

EVERY = os.environ.get("PLAN_CASES") == "all"
NAMES = [p.name for p in sorted(CASES.glob("*.yml")) if EVERY or case(p.name).get("ansible")]


def ansible(folder: Path, *arguments: str, inventory: str = INVENTORY) -> subprocess.CompletedProcess[str]:
    """Run the playbook on an inventory in `folder`, with the project's own ansible.cfg."""
    program = Path(sys.executable).with_name("ansible-playbook")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "DEPLOYCTL_"))}
    environment |= {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "DEPLOYCTL_RUN_DIR": str(folder / "run"),
        "HOME": str(folder),
    }
    command = [str(program), "-i", inventory, *arguments, str(ROOT / "playbooks" / "plan.yml")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def outcome_of(folder: Path, done: subprocess.CompletedProcess[str]) -> Plan | list[Problem]:
    """What the planner answered, read back from the run folder or from Ansible's output."""
    if done.returncode == 0:
        data: dict[str, Any] = json.loads((folder / "run" / "plan.json").read_text())
        warnings = [Problem(**w, severity="warning") for w in data.pop("warnings")]
        return _PlanData(data, warnings)
    found = re.search(r"FAILED! => (\{.*\})$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return [Problem(**p) for p in json.loads(found[1])["problems"]]


class _PlanData(Plan):
    """A plan that came back from its JSON."""

    def __init__(self, data: Mapping[str, Any], warnings: list[Problem]) -> None:
        object.__setattr__(self, "_data", dict(data))
        object.__setattr__(self, "warnings", warnings)

    def as_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = object.__getattribute__(self, "_data")
        return data


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, tmp_path: Path) -> None:
    data = case(name)
    write(tmp_path, data.get("files", {}))
    done = ansible(tmp_path)
    assert mismatches(data, outcome_of(tmp_path, done)) == []
    for secret in secrets_of(data.get("files", {})):
        assert secret not in done.stdout + done.stderr


def test_a_plan_is_written_for_its_owner_only(tmp_path: Path) -> None:
    write(tmp_path, {})
    ansible(tmp_path)  # compiles what was never compiled
    done = ansible(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "plan.json").stat().st_mode) == 0o600


def test_check_mode_plans_too(tmp_path: Path) -> None:
    write(tmp_path, {})
    assert ansible(tmp_path, "--check").returncode == 0
    assert (tmp_path / "run" / "plan.json").is_file()


def test_problems_are_one_readable_text(tmp_path: Path) -> None:
    write(tmp_path, case("unknown-model-key.yml")["files"])
    done = ansible(tmp_path)
    assert done.returncode == 2
    text = done.stdout + done.stderr
    assert "1 problem in local.yml; nothing was touched" in text
    assert "Error: group_vars/local/models.yml:4" in text
    assert "Hint: did you mean `replicas`?" in text


def test_an_inventory_that_does_not_exist(tmp_path: Path) -> None:
    done = ansible(tmp_path, inventory="nowhere.yml")
    assert done.returncode != 0
    assert "nowhere.yml" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_inventory_that_is_no_yaml(tmp_path: Path) -> None:
    write(tmp_path, {INVENTORY: "all:\n  children: [\n  x: {{\n"})
    done = ansible(tmp_path)
    assert done.returncode != 0
    assert INVENTORY in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_empty_inventory_file(tmp_path: Path) -> None:
    write(tmp_path, {INVENTORY: ""})
    done = ansible(tmp_path)
    assert done.returncode != 0
    assert INVENTORY in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


BROKEN = "models:\n  - name: a\n    source: [\n  - name: b\n"


def test_a_variable_file_that_is_no_yaml(tmp_path: Path) -> None:
    files = {INVENTORY: BASE_FILES[INVENTORY].replace("localhost", "gpu1"), "group_vars/local/models.yml": BROKEN}
    write(tmp_path, files)
    problems = outcome_of(tmp_path, ansible(tmp_path))
    assert isinstance(problems, list)
    assert [p.where for p in problems] == ["group_vars/local/models.yml:4"]
    assert "no YAML" in problems[0].what


def test_a_variable_file_of_this_machine_that_is_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible itself stops before the plan, and names no file; `sources.unreadable` tells it beforehand."""
    write(tmp_path, {"group_vars/local/models.yml": BROKEN})
    done = ansible(tmp_path)
    assert done.returncode != 0
    assert "YAML parsing failed" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    monkeypatch.chdir(tmp_path)
    assert [p.where for p in sources.unreadable(INVENTORY)] == ["group_vars/local/models.yml:4"]


def test_a_setting_from_the_command_line_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, {})
    problems = outcome_of(tmp_path, ansible(tmp_path, "-e", "haproxy_prot=9000"))
    assert isinstance(problems, list)
    assert [p.what for p in problems] == ["unknown variable `haproxy_prot`: role haproxy has none of that name"]


def test_null_is_a_value_where_it_is_the_default(tmp_path: Path) -> None:
    write(tmp_path, {})
    values = json.dumps({"acceptance_load_ttft_p95_ms_max": None})
    assert ansible(tmp_path, "-e", values).returncode == 0
    problems = outcome_of(tmp_path, ansible(tmp_path, "-e", json.dumps({"haproxy_port": None})))
    assert isinstance(problems, list) and "haproxy_port" in problems[0].what


def test_keys_from_a_vault_without_its_password(tmp_path: Path) -> None:
    vault = "haproxy_api_keys:\n  - id: a\n    key: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      61626364\n"
    write(
        tmp_path, {"group_vars/local/main.yml": "ansible_connection: local\ndevices: [{kind: cpu, count: 4}]\n" + vault}
    )
    problems = outcome_of(tmp_path, ansible(tmp_path))
    assert isinstance(problems, list)
    assert [(p.where, p.what) for p in problems] == [
        (
            "group_vars/local/main.yml:5",
            "`haproxy_api_keys[0].key` cannot be rendered: it is encrypted, "
            "and the vault's password is missing or wrong",
        )
    ]


def test_what_runs_now_stays_in_place(tmp_path: Path) -> None:
    """The task's `current` reaches the placement."""
    write(tmp_path, {})
    book = tmp_path / "books" / "book.yml"
    book.parent.mkdir()
    task = "deployctl_plan: {current: {tiny-chat-0: {host: localhost, devices: [3], port: 8700}}}"
    book.write_text(f"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n    - {task}\n")
    plugins = str(ROOT / "playbooks" / "action_plugins")
    environment = os.environ | {
        "ANSIBLE_ACTION_PLUGINS": plugins,
        "DEPLOYCTL_RUN_DIR": str(tmp_path / "run"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    subprocess.run(
        [program, "-i", INVENTORY, str(book)],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    first = json.loads((tmp_path / "run" / "plan.json").read_text())["instances"][0]
    assert (first["name"], first["devices"], first["port"]) == ("tiny-chat-0", [3], 8700)
