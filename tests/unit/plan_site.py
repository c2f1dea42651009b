"""Sites for the planner's tests: a few files as an operator would write them, read without Ansible (and so fast).

Ansible's part is imitated as far as the cases need it: groups, the order in which variables win, `{{ name }}`.
tests/unit/test_plan_ansible.py runs the same files through the real thing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy_cli.plan import Placed, Plan, Problem, SiteInput, Unresolved, collect, make_plan, sources
from deploy_cli.plan.shapes import GROUPS, KeyPath

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "cases" / "plan"
INVENTORY = "local.yml"
BASE_FILES = {
    INVENTORY: """\
all:
  children:
    local:
      children:
        serving: {hosts: {localhost: }}
        gateway: {hosts: {localhost: }}
        telemetry: {hosts: {localhost: }}
""",
    "group_vars/local/main.yml": """\
ansible_connection: local
devices: [{kind: cpu, count: 4}]
haproxy_api_keys: [{id: tests, key: 0123456789abcdef-not-a-real-key}]
""",
    "group_vars/local/models.yml": """\
models:
  - name: tiny-chat
    source: synthetic:tiny-chat
    replicas: 2
    aliases: [chat-default]
""",
}
_TEMPLATE = re.compile(r"\{\{ (\w+)[\w.]* \}\}")


class _Loader:
    """Stands in for Ansible's loader where roles are read."""

    def load_from_file(self, name: str, **_: Any) -> Any:
        return yaml.load(Path(name).read_text(), Loader=yaml.CSafeLoader)


@functools.cache
def roles() -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The real roles' specs, and those of their defaults that the planner reads."""
    specs, defaults = collect.read_roles(ROOT / "roles", _Loader())
    return specs, {n: v for n, v in defaults.items() if collect.READ_DEFAULTS.fullmatch(n)}


@functools.cache
def filled() -> frozenset[str]:
    """The roles' variables whose default is a text."""
    defaults = collect.read_roles(ROOT / "roles", _Loader())[1]
    return frozenset(name for name, value in defaults.items() if value and isinstance(value, str))


def case(name: str) -> dict[str, Any]:
    """One case file."""
    data: dict[str, Any] = yaml.safe_load((CASES / name).read_text())
    return data


def write(folder: Path, files: Mapping[str, str | None]) -> None:
    """Write a site: the base files, with those of the case over them (None takes one away)."""
    for name, text in {**BASE_FILES, **files}.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def plan(folder: Path, current: Mapping[str, Placed] | None = None) -> Plan | list[Problem]:
    """Plan the site in a folder; the working folder must be that folder."""
    return make_plan(site_input(folder, current))


def site_input(folder: Path, current: Mapping[str, Placed] | None = None) -> SiteInput:
    """Read the site in a folder as Ansible would."""
    specs, defaults = roles()
    tree = yaml.safe_load((folder / INVENTORY).read_text()) or {}
    groups: dict[str, list[str]] = {}
    parents: dict[str, list[str]] = {}
    own_vars: dict[str, dict[str, Any]] = {}
    _walk("all", tree.get("all") or {}, groups, parents, own_vars)
    above = {g: sorted(p for p in parents.get(g, []) if p != "all") for g in GROUPS if g in groups}
    site = collect.site_group(above)
    members = list(dict.fromkeys(h for g in (*GROUPS, site) for h in groups.get(g, ())))
    values: dict[str, dict[str, Any]] = {}
    lines: dict[str, dict[KeyPath, str]] = {}
    for host in members:
        values[host], lines[host] = _merge(folder, host, groups, parents, own_vars)
    problems = sources.scan([INVENTORY], [g for g, h in groups.items() if set(h) & set(members)], members)
    return SiteInput(
        inventory=INVENTORY,
        site=site,
        groups=groups,
        parents=above,
        hosts={h: {n: _render(v, values[h]) for n, v in values[h].items()} for h in members},
        specs=specs,
        defaults=defaults,
        filled=filled(),
        origin=lambda host, path: lines.get(host, {}).get(path),
        exists=lambda path: Path(path).exists(),
        is_folder=lambda path: Path(path).is_dir(),
        base=str(folder),
        problems=problems,
        current=current or {},
    )


def _walk(name: str, node: Any, groups: Any, parents: Any, own_vars: Any) -> list[str]:
    hosts = list((node or {}).get("hosts") or {})
    own_vars[name] = (node or {}).get("vars") or {}
    for host, found in ((node or {}).get("hosts") or {}).items():
        own_vars[f"host {host}"] = {**own_vars.get(f"host {host}", {}), **(found or {})}
    for child, inner in ((node or {}).get("children") or {}).items():
        parents.setdefault(child, []).append(name)
        hosts += _walk(child, inner, groups, parents, own_vars)
    everyone = list(dict.fromkeys(hosts + groups.get(name, [])))
    groups[name] = everyone
    return everyone


def _merge(folder: Path, host: str, groups: Any, parents: Any, own_vars: Any) -> tuple[dict[str, Any], Any]:
    def depth(group: str) -> int:
        return 1 + max((depth(p) for p in parents.get(group, [])), default=0)

    values: dict[str, Any] = {}
    lines: dict[KeyPath, str] = {}
    mine = sorted((g for g, hosts in groups.items() if host in hosts), key=lambda g: (depth(g), g))
    steps = [(own_vars[g], sources.vars_files(folder / "group_vars", g)) for g in mine]
    steps.append((own_vars.get(f"host {host}", {}), sources.vars_files(folder / "host_vars", host)))
    for written, files in steps:
        for name, value in written.items():
            values[name] = value
        for path in files:
            loader = yaml.SafeLoader(path.read_text())
            node = loader.get_single_node()
            for name, value in (loader.construct_document(node) if node else {}).items():
                values[name] = value
                for old in [p for p in lines if p[0] == name]:
                    del lines[old]
            lines |= {p: f"{path.relative_to(folder)}:{line}" for p, line in _lines(node, ())}
    return values, lines


def _lines(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            # Ansible cannot tag what is empty, true or false: there the line is that of the list.
            if value.tag not in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"):
                yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))


def _render(value: Any, scope: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: _render(v, scope) for k, v in value.items()}
    if isinstance(value, list):
        return [_render(v, scope) for v in value]
    if not isinstance(value, str) or not (found := _TEMPLATE.search(value)):
        return collect.plain(value)
    name = found[1]
    if name == "ansible_facts":
        return Unresolved("it needs facts of a host", facts=True)
    if name not in scope:
        return Unresolved(f"'{name}' is undefined")
    inner = _render(scope[name], scope)
    return inner if found[0] == value or isinstance(inner, Unresolved) else value.replace(found[0], str(inner))


def mismatches(expected: Mapping[str, Any], outcome: Plan | list[Problem]) -> list[str]:
    """What differs between a case's expectation and the outcome; nothing when all is as expected."""
    if "problems" in expected:
        if isinstance(outcome, Plan):
            return ["planned, although it should have been refused"]
        return _unlike(expected["problems"], [p for p in outcome if p.severity == "error"])
    if not isinstance(outcome, Plan):
        return [f"refused: {p.where}: {p.what} ({p.hint})" for p in outcome]
    wrong = _unlike(expected.get("warnings", []), outcome.warnings)
    return wrong + list(_differences(expected["plan"], outcome.as_dict(), "plan"))


def _unlike(expected: list[dict[str, str]], found: list[Problem]) -> list[str]:
    left = list(found)
    wrong = []
    for one in expected:
        match = next((p for p in left if _like(one, p)), None)
        if match:
            left.remove(match)
        else:
            wrong.append(f"not told: {one}")
    return wrong + [f"also told: {p.where}: {p.what} ({p.hint})" for p in left]


def _like(one: Mapping[str, str], problem: Problem) -> bool:
    return (
        one["where"] == problem.where
        and one["what"] in problem.what
        and one.get("hint", "") in problem.hint
        and bool(problem.hint)
    )


def _differences(expected: Any, found: Any, place: str) -> Iterator[str]:
    """Every place where `found` lacks or contradicts what is expected; a mapping may hold more than is expected."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            yield from _differences(value, found.get(key, "(missing)"), f"{place}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, value in enumerate(expected):
            yield from _differences(value, found[index], f"{place}[{index}]")
    elif expected != found:
        yield f"{place} is {found!r}, not {expected!r}"


def secrets_of(files: Mapping[str, str | None]) -> set[str]:
    """Every text that stands behind `key:` or `token` in a site's files; none of it may ever be shown."""
    text = "\n".join(t for t in {**BASE_FILES, **files}.values() if t)
    return {s for s in re.findall(r"(?:\bkey|TOKEN|PASSWORD): *[\"']?([^\s\"',}\]]{4,})", text) if "{{" not in s}
