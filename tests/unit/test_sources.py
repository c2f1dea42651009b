"""Files of an inventory that cannot be read: named, with the right reason, before or after Ansible has stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_site import BASE_FILES, INVENTORY, write
from test_plan_ansible import ansible, outcome_of

from deploy_cli.plan import sources
from deploy_cli.plan.wording import ENCRYPTED, VAULT_HINT

VAULT = "$ANSIBLE_VAULT;1.1;AES256\n61626364\n"
MAIN = "group_vars/local/main.yml"
REMOTE = {INVENTORY: BASE_FILES[INVENTORY].replace("localhost", "gpu1")}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (b"a: caf\xe9\n", 1, "not UTF-8"),
        (b"a: 1\nb: !foo bar\n", 2, "does not know the tag `!foo`"),
        (b"a: 1\n---\nb: 2\n", 3, "a second document"),
        (b"a:\n\tb: 1\n", 2, "no YAML"),
    ],
)
def test_what_ansible_cannot_read_is_told_with_its_line(
    text: bytes, where: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {})
    (tmp_path / MAIN).write_bytes(text)
    monkeypatch.chdir(tmp_path)
    (problem,) = sources.unreadable(INVENTORY)
    assert problem.where == f"{MAIN}:{where}" and what in problem.what and problem.hint


def test_a_folder_is_an_inventory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"group_vars/unused.yml": "a: [\n", ".git/x.yml": "a: [\n"})
    (tmp_path / "more.yml").write_text("all:\n\thosts: {}\n")
    monkeypatch.chdir(tmp_path)
    assert [problem.where for problem in sources.unreadable(".")] == ["more.yml:2"]


def test_what_ansible_reads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {MAIN: "--- # one\na: !unsafe '{{'\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n..." + "\n"})
    (tmp_path / "group_vars/local/keys.yml").write_text(VAULT)
    (tmp_path / "hosts").write_text("[serving]\nlocalhost\n")
    monkeypatch.chdir(tmp_path)
    assert sources.unreadable(INVENTORY) == []
    assert sources.encrypted(INVENTORY) == ["group_vars/local/keys.yml"]
    assert sources.scan(["hosts"], ["serving"], ["localhost"]) == [], "an inventory without a suffix is INI"


def test_a_whole_file_from_a_vault_without_its_password(tmp_path: Path) -> None:
    write(tmp_path, {**REMOTE, MAIN: VAULT})
    problems = outcome_of(tmp_path, ansible(tmp_path))
    assert isinstance(problems, list)
    assert [(one.where, one.what, one.hint) for one in problems] == [(MAIN, ENCRYPTED, VAULT_HINT)]


def test_one_value_from_a_vault_without_its_password(tmp_path: Path) -> None:
    main = BASE_FILES[MAIN].replace("0123456789abcdef-not-a-real-key", "!vault $ANSIBLE_VAULT;1.1;AES256")
    write(tmp_path, {**REMOTE, MAIN: main})
    problems = outcome_of(tmp_path, ansible(tmp_path))
    assert isinstance(problems, list)
    assert [one.hint for one in problems] == [VAULT_HINT]


def test_a_setting_from_the_command_line_is_said_to_be_from_there(tmp_path: Path) -> None:
    write(tmp_path, {"env/extra-vars-0.yml": "haproxy_prot: 9000\n"})
    problems = outcome_of(tmp_path, ansible(tmp_path, "-e", f"@{tmp_path}/env/extra-vars-0.yml"))
    assert isinstance(problems, list)
    assert [one.where for one in problems] == ["-e on the command line"]


def test_a_file_beside_the_folder_of_its_name_is_not_read_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"group_vars/local.yml": "haproxy_prot: 8\n", "host_vars/localhost.json": "{}"})
    monkeypatch.chdir(tmp_path)
    told = sources.scan([INVENTORY], ["local"], ["localhost"])
    assert [problem.where for problem in told if "does not read it" in problem.what] == ["group_vars/local.yml"]
    assert (
        next(problem for problem in told if "does not read it" in problem.what).hint == "move it to group_vars/local/"
    )
