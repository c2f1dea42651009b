"""The shape of an inventory in YAML: a key that Ansible drops without a word, and what it tells by its classes' names.

Reads texts alone. What is told here for a person to see is the line, and how it should look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from deploy_cli.errors import Problem
from deploy_cli.plan.wording import nearest

_SECTIONS = {
    "children": "one group per line below `children:`, each as `name:`",
    "hosts": "one host per line below `hosts:`, each as `name:`",
    "vars": "one variable per line below `vars:`, each as `name: value`",
}
_OWN = re.compile(r"[_.]|x-")  # at the top: what holds anchors, by custom
_DEEPEST = 40
_NULL = "tag:yaml.org,2002:null"


def check(text: str, name: str) -> Iterator[tuple[Problem, bool]]:
    """Yield every Problem of an inventory's groups, and whether Ansible stops at it by itself.

    What cannot be read at all, and what a plugin reads (`plugin: ...`), is left alone.
    """
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return  # told by sources.check_text
    if root is None or _is_empty(root):
        return
    if not isinstance(root, yaml.MappingNode):
        yield _at(root, name, f"an inventory is a mapping of groups, not {_kind(root)}", "begin with `all:`"), True
        return
    groups = list(_entries(root))
    if any(key.value == "plugin" for key, _ in groups):
        return
    for key, value in groups:
        if key.value in _SECTIONS:
            what = f"`{key.value}` at the top of an inventory is a group of that name"
            yield _at(key, name, what, "put `all:` above it, and indent it"), False
        elif not _OWN.match(key.value):
            yield from _group(key, value, name, 0)


def _group(name: yaml.Node, node: yaml.Node, file: str, depth: int) -> Iterator[tuple[Problem, bool]]:
    if _is_empty(node) or depth > _DEEPEST:
        return
    if not isinstance(node, yaml.MappingNode):
        hint = "a group has `hosts:`, `children:` or `vars:` below its name"
        yield _at(name, file, f"group `{name.value}` must be a mapping, not {_kind(node)}", hint), False
        return
    for key, value in _entries(node):
        section = key.value
        if section not in _SECTIONS:
            what = f"Ansible drops key `{section}` of group `{name.value}` without a word"
            yield _at(key, file, what, _belongs(section, value)), False
        elif isinstance(value, yaml.MappingNode):
            for inner, below in _entries(value) if section != "vars" else ():
                found = _host(inner, below, file) if section == "hosts" else _group(inner, below, file, depth + 1)
                yield from found
        elif isinstance(value, yaml.SequenceNode) or (section == "vars" and not _is_empty(value)):
            what = f"`{section}` of group `{name.value}` must be a mapping, not {_kind(value)}"
            yield _at(key, file, what, _SECTIONS[section]), True


def _host(name: yaml.Node, node: yaml.Node, file: str) -> Iterator[tuple[Problem, bool]]:
    if name.value.startswith("ansible_"):
        hint = "indent it further than its host, which ends in `:`"
        yield _at(name, file, f"variable `{name.value}` stands where the name of a host belongs", hint), True
    elif isinstance(node, yaml.MappingNode):
        for key, _ in _entries(node):
            if key.value == "vars":
                what = f"host `{name.value}` has `vars`: that is for groups, and to a host a variable of that name"
                yield _at(key, file, what, "take `vars:` out: a host's variables stand right below its name"), False
    elif not _is_empty(node):
        hint = f"write `{name.value}: {{ansible_host: <address>}}`, or `{name.value}:` alone"
        yield _at(name, file, f"host `{name.value}` must be a mapping of variables, not {_kind(node)}", hint), True


def _belongs(key: str, value: yaml.Node) -> str:
    """Where a key that no group has most likely belongs."""
    if isinstance(value, yaml.MappingNode) and any(k.value in _SECTIONS for k, _ in _entries(value)):
        return f"put group `{key}` below `children:`"
    if near := nearest(key, _SECTIONS):
        return f"did you mean `{near}`?"
    return "a group goes below `children:`, a host below `hosts:`, a variable below `vars:`"


def _entries(node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """The entries of a mapping, with those that `<<` merges into it."""
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(merged, yaml.MappingNode) and merged is not node:
                    yield from _entries(merged)
        elif isinstance(key, yaml.ScalarNode):
            yield key, value


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and (node.tag == _NULL or node.value == "")


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _at(node: yaml.Node, file: str, what: str, hint: str) -> Problem:
    return Problem(f"{file}:{node.start_mark.line + 1}", what, hint)
