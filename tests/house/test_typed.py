"""Numbers and switches arrive as text from `-e name=value` and INI files: whatever reckons with one casts it first."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CASTS = {"int": "int|float", "float": "float|int", "bool": "bool"}
PLACES = ("roles/*/tasks/*.yml", "roles/*/vars/*.yml", "roles/*/defaults/*.yml", "roles/*/handlers/*.yml",
          "roles/*/templates/*", "playbooks/*.yml", "playbooks/plays/*.yml", "playbooks/plays/tasks/*.yml")  # fmt: skip
# What stands before or after a value that is reckoned with.
BEFORE = re.compile(r"([<>+\-*/%=,(\[]|\b(if|not|and|or|else)) *$|^ *(- |when: |that: )$")
AFTER = re.compile(r" *([<>=!+\-*/%]|\b(if|else|and|or)\b)")


def options() -> dict[str, str]:
    """Every numeric or boolean option of a role, with its type."""
    found = {}
    for file in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(file.read_text())["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                if (option or {}).get("type") in CASTS:
                    found[name] = option["type"]
    return found


def uncast(line: str, known: dict[str, str]) -> list[str]:
    """Names in a line that are reckoned with as they came."""
    found: list[str] = []
    if line.lstrip().startswith("#") or re.match(r"\s*(- )?(name|[\w.]*msg|description):", line):
        return found
    for match in re.finditer(r"(?<![\w.'\"])[a-z]\w+(?!\w|:)", line):
        kind = known.get(match.group())
        if not kind or re.match(rf" *\| *({CASTS[kind]})\b", line[match.end() :]):
            continue
        before, after = line[: match.start()], line[match.end() :]
        if before.endswith("(") and after.startswith(")"):
            continue  # in a sentence
        if BEFORE.search(before) or AFTER.match(after):
            found.append(match.group())
    return found


def test_numbers_and_switches_are_cast_where_they_are_reckoned_with() -> None:
    known = options()
    assert len(known) > 50
    bare = [
        f"{file.relative_to(ROOT)}:{number}: {name}"
        for place in PLACES
        for file in sorted(ROOT.glob(place))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for name in uncast(line, known)
    ]
    assert bare == []


def test_a_bare_one_is_found() -> None:
    known = {"some_seconds": "int", "some_switch": "bool"}
    assert uncast("    that: some_seconds > 0", known) == ["some_seconds"]
    assert uncast("    - some_switch", known) == ["some_switch"]
    assert uncast("  x: \"{{ 'a' if some_switch else 'b' }}\"", known) == ["some_switch"]
    assert uncast('  wait: "{{ some_seconds }}"', known) == []
    assert uncast("    that: some_seconds | int > 0 and some_switch | bool", known) == []
