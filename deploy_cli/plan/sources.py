"""What Ansible does not tell about the inventory's files: keys written twice, and values in files all sites share.

This reads files (the planner itself does not). Values are Ansible's business; only the files' shape is looked at here.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from deploy_cli.errors import Problem
from deploy_cli.plan import groups as shape
from deploy_cli.plan.shapes import GROUPS

UNREADABLE = "the file is no YAML"
SHARED_GROUPS = ("all", "ungrouped", *GROUPS)
_SUFFIXES = ("", ".yml", ".yaml", ".json")
_YAML = (".yml", ".yaml", ".json")
_TAGS = ("!", "!unsafe", "!vault", "!vault-encrypted")  # what Ansible adds to YAML
_SEE = "see this line and the one above"


def shown_path(path: Path) -> str:
    """A path as a reader would type it: relative to the working folder when it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def check_text(text: str, name: str) -> Iterator[Problem]:
    """Yield a Problem for a text that Ansible cannot read, and for every key written twice in one mapping of it.

    What is encrypted as a whole is Ansible's: it has the password.
    """
    if is_vault(text):
        return
    try:
        documents = list(yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        yield Problem(where, f"{UNREADABLE}: {getattr(error, 'problem', None) or 'not text'}", _SEE)
        return
    for second in documents[1:2]:
        what = f"{UNREADABLE} that Ansible takes: a second document begins here"
        yield Problem(f"{name}:{second.start_mark.line + 1}", what, "keep one: take out the `---` between them")
    waiting: list[object] = list(documents)
    visited: set[int] = set()
    while waiting:
        node = waiting.pop(0)
        if id(node) in visited:
            continue  # an anchor may lead back to a node that was seen
        visited.add(id(node))
        tag = getattr(node, "tag", None) or ""
        if isinstance(node, yaml.Node) and tag.startswith("!") and tag not in _TAGS:
            what = f"{UNREADABLE} that Ansible takes: it does not know the tag `{tag}`"
            yield Problem(f"{name}:{node.start_mark.line + 1}", what, "take it out, or put the value in quotes")
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                waiting.append(value)
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                    continue
                if key.value in first:
                    yield Problem(
                        f"{name}:{line}",
                        f"key `{key.value}` is written twice in one mapping, first in line {first[key.value]}",
                        "keep one of them; Ansible would silently take the last",
                    )
                else:
                    first[key.value] = line


def is_vault(text: str) -> bool:
    """Say whether ansible-vault has encrypted a whole file."""
    return text.startswith("$ANSIBLE_VAULT;")


def holds_map(text: str) -> bool:
    """Say whether a text that can be read holds a mapping, or nothing; what is encrypted is taken for one."""
    if is_vault(text):
        return True
    found = next(iter(yaml.compose_all(text, Loader=yaml.SafeLoader)), None)
    return found is None or isinstance(found, yaml.MappingNode) or found.value == ""


def check_file(path: Path) -> list[Problem]:
    """Return all that is wrong with a file: as check_text, and bytes that are no UTF-8."""
    name = shown_path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        return [Problem(name, f"{UNREADABLE}: it cannot be read ({error.strerror})", "see its owner and its mode")]
    try:
        return list(check_text(raw.decode("utf-8"), name))
    except UnicodeDecodeError as error:
        # Ansible takes such bytes for signs of their own, and stops later, at another place.
        line = raw.count(b"\n", 0, error.start) + 1
        return [
            Problem(
                f"{name}:{line}", f"{UNREADABLE}: it is not UTF-8", f"`iconv -f latin1 -t utf-8 {name}` writes it so"
            )
        ]


def check_variables(path: Path) -> list[Problem]:
    """As check_file, of a file of a group's or host's variables: it holds a mapping."""
    problems = check_file(path)
    if not problems and not is_vault(text := _text(path)):
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if isinstance(node, yaml.SequenceNode) or (isinstance(node, yaml.ScalarNode) and node.value):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            what = f"{UNREADABLE} that Ansible takes: a file of variables is a mapping, not {kind}"
            key = path.stem if path.stem in ("models", "devices") else "<name>"
            hint = f"begin with `{key}:`, and put it below, indented"
            problems.append(Problem(f"{shown_path(path)}:{node.start_mark.line + 1}", what, hint))
    return problems


def vars_files(folder: Path, name: str) -> Iterator[Path]:
    """The files in which Ansible looks for a group's or host's variables: `<name>`, `<name>.yml`, `<name>/...`."""
    for suffix in _SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            yield path
        elif path.is_dir() and not suffix:
            yield from (
                p
                for p in sorted(path.rglob("*"))
                if p.is_file() and p.suffix in _SUFFIXES and not p.name.startswith(".")
            )


def set_twice(folder: Path, names: Iterable[str]) -> Iterator[Problem]:
    """Yield a Problem for every variable that two files of one group's or host's folder set."""
    for name in names:
        first: dict[str, str] = {}
        for path in vars_files(folder, name):
            if path == folder / name or not path.is_relative_to(folder / name):
                continue
            for key, line in _top_keys(path.read_text(errors="replace")):
                place = f"{shown_path(path)}:{line}"
                other = first.setdefault(key, place)
                if other.rpartition(":")[0] != shown_path(path):
                    yield Problem(
                        place,
                        f"`{key}` is set in {other} too",
                        "set it once: of the files of one folder the last counts, by their names",
                        "error" if key in ("models", "devices") else "warning",
                    )


def passed_over(folder: Path, names: Iterable[str]) -> Iterator[Problem]:
    """Yield a Problem for every file of variables that Ansible does not read because of a folder or file beside it."""
    for name in names:
        first, *others = [path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").exists()] or [folder]
        for path in others:
            what = f"Ansible does not read it: of {name}, {name}.yml and the like it takes the first that is there"
            inside = f"move it to {shown_path(first)}/" if first.is_dir() else f"join it with {shown_path(first)}"
            yield Problem(shown_path(path), what, inside)


def _top_keys(text: str) -> Iterator[tuple[str, int]]:
    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return  # told by check_text
    for key, _value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode):
            yield key.value, key.start_mark.line + 1


def scan(inventories: Sequence[str], groups: Iterable[str], hosts: Sequence[str], playbooks: str = "") -> list[Problem]:
    """All that is wrong with the shape of an inventory's files and the variable files beside them."""
    problems: list[Problem] = []
    groups = list(groups)
    sources = [Path(source) for source in inventories]
    files = [s for s in sources if s.is_file()]
    for folder in dict.fromkeys(s if s.is_dir() else s.parent for s in sources):
        for group in SHARED_GROUPS:
            problems += [_leak(path, group) for path in vars_files(folder / "group_vars", group)]
        for kind, names in (("group_vars", groups), ("host_vars", hosts)):
            problems += [*set_twice(folder / kind, names), *passed_over(folder / kind, names)]
        files += [p for group in groups for p in vars_files(folder / "group_vars", group)]
        files += [p for host in hosts for p in vars_files(folder / "host_vars", host)]
        if "localhost" in hosts:
            problems += [
                Problem(
                    f"{shown_path(path)}:1",
                    "values for host `localhost` count for every site that uses this machine",
                    "move them to group_vars/<site>/, the folder of the site's own group",
                    "warning",
                )
                for path in vars_files(folder / "host_vars", "localhost")
            ]
    beside = Path(playbooks).absolute()
    if playbooks and beside not in [(s if s.is_dir() else s.parent).absolute() for s in sources]:
        for kind in ("group_vars", "host_vars"):
            problems += [
                Problem(
                    shown_path(path),
                    f"{kind} beside the playbooks win over every site's own values",
                    f"move them to the inventory's group_vars/<site>/ and delete {shown_path(path)}",
                )
                for path in [beside / kind]
                if path.is_dir() and any(path.iterdir())
            ]
    for path in dict.fromkeys(files):
        # An inventory without a suffix is INI more often than not; a file of variables never is.
        if path in sources:
            problems += check_file(path) if path.suffix in _YAML else []
        elif path.suffix in _SUFFIXES:
            problems += check_variables(path)
    return problems + [problem for source in sources for file in _own(source) for problem, _ in _shape(file)]


def unreadable(inventory: str) -> list[Problem]:
    """What Ansible stops at in an inventory's files, before it starts: it ends at the first, without its name."""
    source = Path(inventory)
    own = _own(source)
    found = [problem for file in own for problem in check_file(file)]
    found += [problem for file in _variables(source, own) for problem in check_variables(file)]
    found = [problem for problem in found if problem.what.startswith(UNREADABLE)]
    shapes = [one for file in own for one in _shape(file)]
    if any(stops for _, stops in shapes):
        found += [problem for problem, _ in shapes]
    program = source.suffix not in _YAML and source.is_file() and _text(source).startswith("#!")
    if program and not os.access(source, os.X_OK):
        name = shown_path(source)
        found.append(Problem(name, "an inventory that is a program must be executable", f"`chmod +x {name}`"))
    return found


def _shape(file: Path) -> list[tuple[Problem, bool]]:
    text = _text(file)
    return [] if is_vault(text) or text.startswith("#!") else list(shape.check(text, shown_path(file)))


def encrypted(inventory: str) -> list[str]:
    """Files of an inventory that ansible-vault has encrypted as a whole, as a reader would type them."""
    return [shown_path(file) for file in _files(Path(inventory)) if is_vault(_text(file))]


def _files(inventory: Path) -> list[Path]:
    """Files of a YAML inventory (or of a folder of some), and the files of variables beside it that may be read."""
    own = _own(inventory)
    return list(dict.fromkeys([*own, *_variables(inventory, own)]))


def _own(inventory: Path) -> list[Path]:
    """The files of a YAML inventory, or of a folder of some."""
    folder = inventory if inventory.is_dir() else inventory.parent
    below = sorted(inventory.rglob("*")) if inventory.is_dir() else [inventory]
    hidden = re.compile(r"\..*|group_vars|host_vars|vars_plugins")  # Ansible looks for no inventory in these
    own = [f for f in below if not any(hidden.fullmatch(part) for part in f.relative_to(folder).parts)]
    return [f for f in own if f.suffix in _YAML and f.is_file()]


def _variables(inventory: Path, own: Iterable[Path]) -> list[Path]:
    """The files of variables beside an inventory that may be read for it."""
    folder = inventory if inventory.is_dir() else inventory.parent
    found: list[Path] = []
    text = "\n".join(_text(file) for file in own)
    # Every key may be the name of a group or host: what no file is named after does no harm.
    names = sorted(set(re.findall(r"^\s*([\w.-]+)\s*:|(?<=[{,])\s*([\w.-]+)\s*:", text, re.MULTILINE)))
    for name in dict.fromkeys(n for pair in names for n in pair if n):
        found += [f for kind in ("group_vars", "host_vars") for f in vars_files(folder / kind, name)]
    return list(dict.fromkeys(found))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _leak(path: Path, group: str) -> Problem:
    return Problem(
        f"{shown_path(path)}:1",
        f"values for group `{group}` count for every site whose inventory lies here",
        "move them to group_vars/<site>/, the folder of the site's own group",
    )
