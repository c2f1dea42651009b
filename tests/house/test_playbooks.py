"""Playbooks, commands and inventories: one action, one name; and no value hides where it would win silently."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from house import PLAYBOOKS, ROLES, ROOT, below, lines_with, read_yaml, text

from deploy_cli import cli, commands
from deploy_cli.request import Request

FAMILY = ("roles", "playbooks", "molecule")
MAY_BE_AWAY = (
    "status",
    "init",
    "plays/look",
    "plays/in_step",
    "plays/kept",
)  # a host that does not answer is what they tell
SITE_COMMANDS = sorted(
    name
    for name, command in cli.cli.commands.items()
    if any(isinstance(one, click.Argument) and one.name in ("inventory", "site") for one in command.params)
)


def test_every_playbook_has_a_command_and_the_reverse() -> None:
    assert SITE_COMMANDS == PLAYBOOKS


def test_every_playbook_but_report_plans_first() -> None:
    for name in PLAYBOOKS:
        first = read_yaml(f"playbooks/{name}.yml")[0]
        # A report is of a run that has planned already; the past of a site is known though no plan can be made;
        # init writes what a plan is made of; a site goes down whatever its models say.
        if name not in ("plan", "report", "history", "rollback", "init", "down"):
            assert first.get("ansible.builtin.import_playbook") == "plan.yml", f"playbooks/{name}.yml"
    assert read_yaml("playbooks/plan.yml")[0]["tags"] == ["always"]


@pytest.mark.parametrize("name", SITE_COMMANDS)
def test_no_command_sends_settings_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def remember(request: Request, *_: object) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr(commands, "start", remember)
    arguments = [name, "lab", "host"] if name == "init" else [name, "inventories/local.yml"]
    flags = [["--purge"]] if name == "down" else []
    for more in ([], *flags):
        cli.cli.main([*arguments, *more], standalone_mode=False)
    for request in asked:
        assert request.extra_vars == ()
        assert not {"-e", "--extra-vars"} & set(request.options(request.extra_vars))
    assert len(asked) == 1 + len(flags)


def test_only_the_users_own_extra_vars_reach_ansible() -> None:
    words = [
        (str(file), node.value)
        for file in below("deploy_cli", suffixes=(".py",))
        for node in ast.walk(ast.parse(text(file)))
        if isinstance(node, ast.Constant) and node.value in ("-e", "--extra-vars", "extravars")
    ]
    assert sorted(words) == [
        ("deploy_cli/cli.py", "--extra-vars"),
        ("deploy_cli/cli.py", "-e"),
        ("deploy_cli/request.py", "-e"),
    ]
    keywords = {
        keyword.arg
        for node in ast.walk(ast.parse(text("deploy_cli/run.py")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
    }
    assert "private_data_dir" in keywords and "extravars" not in keywords


def documented_tags() -> set[str]:
    paragraph = next(part for part in text("README.md").split("\n\n") if "Tags (`-t`)" in part)
    return set(re.findall(r"`([a-z_]+)`", paragraph.split("Tags (`-t`)")[1]))


def shown_tags(playbook: str) -> set[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    listed = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--list-tags", f"playbooks/{playbook}.yml"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {tag for tags in re.findall(r"TASK TAGS: \[(.*?)\]", listed) for tag in tags.split(", ") if tag}
    return found - {"always", "never"}


def test_documented_tags_are_those_of_up() -> None:
    assert documented_tags() == shown_tags("up")


def test_tags_are_names_of_roles_or_the_purge() -> None:
    assert shown_tags("up") <= set(ROLES)
    assert shown_tags("down") <= {*ROLES, "purge"}


def test_no_error_is_ignored() -> None:
    found = lines_with(r"\bignore_errors\b", below(*FAMILY, suffixes=(".yml", ".j2")))
    found += [
        line
        for line in lines_with(r"\bignore_unreachable\b", below(*FAMILY, suffixes=(".yml", ".j2")))
        if not line.startswith(tuple(f"playbooks/{name}.yml:" for name in MAY_BE_AWAY))
    ]
    assert found == []


def test_values_have_one_home() -> None:
    # A playbook may fall back for what no role owns (site_address, ansible_host); a role's variable has its defaults/.
    fallback = re.compile(r"([\w.]+)\W*\|\s*(?:d|default)\(")
    own = tuple(f"{role}_" for role in ROLES)
    found = []
    for file in below("roles", "playbooks", suffixes=(".yml", ".j2")):
        if file.parts[0] == "roles" and file.parts[2] == "defaults":
            continue
        for number, line in enumerate(text(file).splitlines(), start=1):
            for name in fallback.findall(line):
                if file.parts[0] == "roles" or name.split(".")[-1].startswith(own):
                    found.append(f"{file}:{number}: {line.strip()}")
    assert found == [], "default() outside defaults/:\n" + "\n".join(found)


def site_groups() -> set[str]:
    found = set()

    def walk(groups: dict[str, Any]) -> None:
        for name, group in groups.items():
            children = (group or {}).get("children") or {}
            if "serving" in children:
                found.add(name)
            walk(children)

    for file in sorted((ROOT / "inventories").glob("*.yml")):
        walk(read_yaml(file.relative_to(ROOT)))
    return found


def test_values_of_a_site_live_under_its_own_group() -> None:
    assert site_groups(), "no inventory has a site group (the parent of `serving`)"
    entries = sorted(entry.name for entry in (ROOT / "inventories/group_vars").iterdir())
    assert set(entries) <= site_groups(), "group_vars that are no site's would count for every site"
    assert not {"all", "serving", "gateway", "telemetry", "ungrouped"} & site_groups()


def test_nothing_beside_the_playbooks_wins_silently() -> None:
    found = [file for file in below("playbooks", suffixes=(".yml", ".yaml", "")) if "_vars" in file.parts[1]]
    assert found == []
    assert not [name for name in ("group_vars", "host_vars") if (ROOT / "playbooks" / name).exists()]


def test_nothing_more_moves_when_a_host_has_vanished() -> None:
    # Ansible takes the next batch of a play though a host of the one before could not be reached.
    parts = [play["ansible.builtin.import_playbook"] for play in read_yaml("playbooks/plays/site.yml")]
    assert parts[0] == "place.yml", "what runs, and the GPUs that answer, are known before anything is changed"
    plays = [play for part in parts for play in read_yaml(f"playbooks/plays/{part}")]
    assert len([play for play in plays if "serial" in play]) > 3, "the plays that go host by host are elsewhere now"
    for place, play in enumerate(plays):
        if "serial" in play and "taken back" not in play["name"]:
            assert "all_there.yml" in str(play) or "difference(ansible_play_hosts)" in str(play), play["name"]
            after = next(later for later in plays[place + 1 :] if "taken back" not in later["name"])
            assert after.get("ansible.builtin.import_playbook") == "still_there.yml", play["name"]


def test_files_named_from_the_folder_of_a_playbook_are_there() -> None:
    # `playbook_dir` is the folder of the imported file, not of the playbook that imports it.
    told = re.compile(r"\{\{ playbook_dir \}\}/([\w./-]+\.(?:yml|py|sh|j2))")
    for file in below("playbooks", "molecule", suffixes=(".yml",)):
        if "tasks" not in file.parts:
            for name in told.findall(text(file)):
                assert (ROOT / file).parent.joinpath(name).exists(), f"{file}: {name}"


def test_no_result_hides_a_variable_of_the_plays() -> None:
    # What is registered or set as a fact wins over variables of plays for the rest of the run, in whichever file.
    results: set[str] = set()
    variables: set[str] = set()
    for file in below("playbooks", suffixes=(".yml",)):
        waiting: list[Any] = [{"vars": read_yaml(file)} if file.parent.name == "vars" else read_yaml(file)]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                results |= {str(part["register"])} if isinstance(part.get("register"), str) else set()
                results |= set(part.get("ansible.builtin.set_fact") or {})
                variables |= set(part["vars"]) if isinstance(part.get("vars"), dict) else set()
                waiting += part.values()
            elif isinstance(part, list):
                waiting += part
    assert {"site_plan", "site_engines"} <= results and {"site_left", "site_place"} <= variables
    assert results & variables == set()
