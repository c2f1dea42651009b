"""What is given by -e, and how a run ends that Ansible stopped before any task."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy_cli.errors import UsageError
from deploy_cli.outcome import judge
from deploy_cli.plan.wording import ENCRYPTED
from deploy_cli.progress import Progress
from deploy_cli.request import Request, extra_vars_files


def given(value: str, folder: Path) -> list[str]:
    return extra_vars_files(Request("up", Path("i.yml"), extra_vars=(value,)), folder)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("@missing.yml", "-e @missing.yml: there is no such file"),
        ("@.", "-e @.: there is no such file"),
        ("@bad.yml", "-e @bad.yml:2: the file is no YAML"),
        ("@list.yml", "-e @list.yml: it is no map"),
        ("@latin.yml", "-e @latin.yml:1: the file is no YAML: it is not UTF-8"),
        ("{s3cret", "-e is no YAML or JSON"),
        ("[s3cret]", "-e is no YAML or JSON"),
        ("{a: !s3cret x}", "-e is no YAML or JSON"),
    ],
)
def test_values_that_cannot_be_read_are_refused_as_what_they_are(
    value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yml").write_text("a: [s3cret\n")
    Path("list.yml").write_text("- a\n")
    Path("latin.yml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UsageError) as told:
        given(value, tmp_path)
    assert str(told.value).startswith(says) and told.value.hint
    assert "s3cret" not in f"{told.value}{told.value.hint}"


def test_files_from_a_vault_and_empty_ones_are_left_to_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    Path("empty.yml").write_text("---\n")
    assert [given(f"@{name}", tmp_path) for name in ("vault.yml", "empty.yml")] == [["@vault.yml"], ["@empty.yml"]]
    assert len(given("{a: 1, b: {c: 2}}", tmp_path)) == 1


def block(plugin: str, reason: str, origin: str) -> str:
    head = f"Failed to parse inventory with '{plugin}' plugin"
    return f"[WARNING]: {head}: {reason}\n\n{head}.\n\n<<< caused by >>>\n\n{reason}\nOrigin: {origin}\n\n"


NO_PLUGIN = "no root 'plugin' key found, '/s/i.yml' is not a valid YAML inventory plugin config file"
YAML = "<inventory plugin 'yaml' with source '/s/i.yml'>"
TABS = "YAML parsing failed: Tabs are usually invalid in YAML."
COLON = "Failed to parse inventory: Invalid host pattern 'all:' supplied, ending in ':' is not allowed"
UNPACK = "Failed to parse inventory: not enough values to unpack (expected 3, got 2)"
NO_SECRET = "Attempting to decrypt but no vault secrets found."


@pytest.mark.parametrize(
    ("source", "blocks", "message", "hint"),
    [
        ("/s/i.yml", [("auto", TABS, "/s/i.yml:2:1"), ("yaml", TABS, YAML), ("ini", COLON, "/s/i.yml")],
         "/s/i.yml:2: Tabs are usually invalid in YAML.", "the one above"),
        ("/s/i.yml", [("auto", NO_PLUGIN, "/s/i.yml"), ("yaml", "bad group", YAML), ("ini", COLON, "/s/i.yml")],
         "/s/i.yml: bad group", "nothing was touched"),
        ("/s/hosts", [("ini", UNPACK, "/s/hosts")], "/s/hosts: a line that begins with `[` has no `]`", "group"),
        ("/s/dc.txt", [("ini", COLON, "/s/dc.txt:1")], "/s/dc.txt:1: Invalid host pattern", "`.yml`"),
        ("/s/i.yml", [("auto", NO_SECRET, "/s/i.yml"), ("yaml", NO_SECRET, YAML)], f"/s/i.yml: {ENCRYPTED}", "-J"),
        ("/s/i.yml", [("auto", NO_SECRET, "/s/e.yml"), ("yaml", NO_SECRET, YAML)], f"/s/e.yml: {ENCRYPTED}", "-J"),
        ("/s/i.yml", [], "Completely failed to parse inventory source /s/i.yml", "nothing was touched"),
    ],
)  # fmt: skip
def test_an_inventory_that_no_plugin_takes_is_told_with_the_fitting_reason(
    source: str, blocks: list[tuple[str, str, str]], message: str, hint: str
) -> None:
    log = "".join(block(*one) for one in blocks) + f"[ERROR]: Completely failed to parse inventory source {source}\n"
    code, status, told, advice = judge(Request("plan", Path(source)), Progress(), 1, log=log)
    assert (code, status) == (2, "refused")
    assert told.startswith(message), told
    assert hint in advice


def test_a_vault_that_ansible_stops_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("i.yml").write_text("all: {children: {local: {}}}\n")
    Path("group_vars").mkdir()
    Path("group_vars/local.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    code, _status, told, hint = judge(Request("plan", Path("i.yml")), Progress(), 1, log=f"[ERROR]: {NO_SECRET}\n")
    assert (code, told) == (2, f"group_vars/local.yml: {ENCRYPTED}")
    assert "--vault-password-file" in hint
    missing = "The vault password file /s/pw was not found"
    assert judge(Request("plan", Path("i.yml")), Progress(), 1, log=f"[ERROR]: {missing}\n")[::2] == (2, missing)
