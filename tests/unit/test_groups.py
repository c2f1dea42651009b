"""The shape of an inventory in YAML: what Ansible drops, or stops at in words of its own, is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_site import BASE_FILES, INVENTORY, write

from deploy_cli.plan import groups, sources

SITE = "all:\n  children:\n    s1:\n"
GROUP = f"{SITE}      children:\n        serving:\n"


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        (f"{SITE}      var: {{haproxy_port: 9999}}\n", 4, "drops key `var` of group `s1`", "did you mean `vars`?"),
        ("all:\n  s1:\n    children: {}\n", 2, "drops key `s1` of group `all`", "put group `s1` below `children:`"),
        (f"{GROUP}          host: {{gpu1: }}\n", 6, "key `host` of group `serving`", "did you mean `hosts`?"),
        (f"{GROUP}          gpu1: {{ansible_host: x}}\n", 6, "key `gpu1`", "a host below `hosts:`"),
        (f"{SITE}      haproxy_port: 9999\n", 4, "key `haproxy_port`", "a variable below `vars:`"),
        (f"{SITE}      <<: {{var: {{a: 1}}}}\n", 4, "key `var`", "`vars`"),
        ("children: {s1: {}}\n", 1, "`children` at the top", "`all:`"),
        ("all:\n  children: {s1: gpu1}\n", 2, "group `s1` must be a mapping", "`hosts:`"),
        (
            f"{GROUP}          hosts: {{gpu1: {{vars: {{a: 1}}}}}}\n",
            6,
            "host `gpu1` has `vars`",
            "right below its name",
        ),
    ],
)
def test_what_ansible_drops_is_told(text: str, line: int, what: str, hint: str) -> None:
    ((problem, stops),) = groups.check(text, "dc.yml")
    assert problem.where == f"dc.yml:{line}" and what in problem.what and hint in problem.hint
    assert not stops


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("- gpu1\n", 1, "an inventory is a mapping of groups, not a list"),
        (f"{GROUP}          hosts: [g1, g2]\n", 6, "`hosts` of group `serving` must be a mapping, not a list"),
        ("all:\n  children: [a, b]\n", 2, "`children` of group `all` must be a mapping"),
        (f"{SITE}      vars:\n        - a: 1\n", 4, "`vars` of group `s1` must be a mapping"),
        (f"{GROUP}          hosts:\n            g1: root@10.0.0.1\n", 7, "host `g1` must be a mapping"),
        (
            f"{GROUP}          hosts:\n            g1:\n            ansible_host: 10.0.0.1\n",
            8,
            "variable `ansible_host` stands where the name of a host belongs",
        ),
    ],
)
def test_what_ansible_stops_at_is_told_before_it_starts(
    text: str, line: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dc.yml").write_text(text)
    (problem,) = sources.unreadable("dc.yml")
    assert problem.where == f"dc.yml:{line}" and what in problem.what and problem.hint


@pytest.mark.parametrize(
    "text",
    [
        BASE_FILES[INVENTORY],
        "",
        "all:\n",
        "plugin: amazon.aws.aws_ec2\nregions: [a]\n",
        "all: {hosts: gpu1, vars: {vars: 1, hosts: [a]}, children: {a: , b: {}}}\n",
        "_common: &c {ansible_user: root}\nall: {hosts: {g1: *c, 'g[2:4]': {<<: *c, devices: []}}}\n",
        "a: &a {children: {b: *a}}\n",
        "a: [\n",
    ],
)
def test_shapes_that_are_right_or_not_ours(text: str) -> None:
    assert list(groups.check(text, "dc.yml")) == []


def test_both_doors_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = BASE_FILES[INVENTORY].replace("      children:", "      var: {a: 1}\n      children:", 1)
    write(tmp_path, {INVENTORY: inventory})
    monkeypatch.chdir(tmp_path)
    assert sources.unreadable(INVENTORY) == [], "with all else that the plan finds"
    assert [p.where for p in sources.scan([INVENTORY], [], [])] == [f"{INVENTORY}:4"]
    assert [p.where for p in sources.scan(["."], [], [])] == [f"{INVENTORY}:4"]


def test_a_file_of_variables_is_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = "group_vars/local/models.yml"
    write(tmp_path, {models: "# mine\n- {name: a}\n", "group_vars/local/empty.yml": "---\n# nothing yet\n"})
    monkeypatch.chdir(tmp_path)
    for found in (sources.unreadable(INVENTORY), sources.scan([INVENTORY], ["local"], ["localhost"])):
        (problem,) = found
        assert problem.where == f"{models}:2" and "not a list" in problem.what and "`models:`" in problem.hint


def test_a_program_that_may_not_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("hosts.py", "site"):
        Path(name).write_text("#!/usr/bin/env python3\n")
        (problem,) = sources.unreadable(name)
        assert problem.where == name and problem.hint == f"`chmod +x {name}`"
        Path(name).chmod(0o755)
        assert sources.unreadable(name) == []
    Path("ini").write_text("[serving]\ngpu1\n")
    assert sources.unreadable("ini") == []
