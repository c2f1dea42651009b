"""Write docs/roles.md from what the roles say of themselves: argument_specs (meaning) and defaults (values).

`--check` writes nothing and ends with 1 when the page is not what would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "roles.md"
HEAD = """# Roles

Written by `make docs` from `roles/*/meta/argument_specs.yml` and `roles/*/defaults/main.yml`; edits here are lost.

Set a variable in `inventories/group_vars/<site>/`. A default in *italics* is put together from other variables or is
too long for a table; it stands in the role's `defaults/main.yml`.
"""
LONGEST = 60  # characters of a default that a table row still bears


def load(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def cell(words: str) -> str:
    """Text as one cell of a table."""
    return " ".join(words.split()).replace("|", "\\|")


def default(value: Any) -> str:
    """A default as a reader would type it."""
    if value == "":
        return "empty"
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return "*see defaults*" if "{{" in shown or len(shown) > LONGEST else f"`{cell(shown)}`"


def kind(option: dict[str, Any]) -> str:
    """Type of an option: `list of str`, `int`."""
    inner = option.get("elements")
    return f"{option['type']} of {inner}" if inner else str(option["type"])


def rows(options: dict[str, Any], above: str = "", defaults: dict[str, Any] | None = None) -> list[str]:
    """Table rows of the options, those nested in them right below."""
    lines = []
    for name, option in options.items():
        choices = option.get("choices") or []
        meaning = cell(option["description"]) + (f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else "")
        value = "" if defaults is None else default(defaults[name])
        if option.get("required"):
            value = "required"
        lines.append(f"| `{above}{name}` | {kind(option)} | {value} | {meaning} |")
        lines += rows(option.get("options") or {}, f"{above}{name}.")
    return lines


def role_section(folder: Path) -> list[str]:
    """The page's section on one role."""
    specs = load(folder / "meta" / "argument_specs.yml")["argument_specs"]
    main = specs["main"]
    lines = ["", f"## {folder.name}", "", f"{main['short_description']}.", ""]
    lines += ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    lines += rows(main["options"], defaults=load(folder / "defaults" / "main.yml"))
    others = [f"`{name}` ({spec['short_description'].lower()})" for name, spec in specs.items() if name != "main"]
    if others:
        lines += ["", f"Further entry points: {', '.join(others)}."]
    return lines


def page() -> str:
    """The whole page."""
    lines = HEAD.splitlines()
    for folder in sorted((ROOT / "roles").iterdir()):
        if (folder / "meta" / "argument_specs.yml").is_file():
            lines += role_section(folder)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or say whether it is fresh; returns the exit code."""
    wanted = page()
    if "--check" in sys.argv[1:]:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted
        print(f"{PAGE.name} is {'fresh' if fresh else 'stale: run `make docs`'}")
        return 0 if fresh else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
