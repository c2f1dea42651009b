"""The Python code keeps its borders: short files, one importer each for two libraries, and a plan without I/O."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from house import ROOT, files, importers, imports, text

LONGEST = 400
# What reads or writes anything outside of memory, and Ansible itself.
DOORS = {"os", "io", "subprocess", "socket", "shutil", "tempfile", "pathlib", "glob", "urllib", "http", "requests"}
DOORS |= {"docker", "yaml", "ansible", "ansible_runner", "logging", "sys", "time", "random", "datetime", "secrets"}
READS = {"open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "glob"}


def test_python_files_are_short() -> None:
    counted = {str(file): len(text(file).splitlines()) for file in files() if file.suffix == ".py"}
    assert {file: lines for file, lines in counted.items() if lines >= LONGEST} == {}


def test_one_file_imports_the_runner_and_one_the_statistics() -> None:
    for module, owner in (("ansible_runner", "deploy_cli/run.py"), ("haproxystats", "deploy_cli/gateway/stats.py")):
        assert [file for file in importers(module) if not file.startswith("tests/")] == [owner]


def planner() -> list[Path]:
    """The planner's files: all that `make_plan` imports of ours, and what that imports."""
    waiting = [Path("deploy_cli/plan/make.py")]
    found: list[Path] = []
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.append(file)
        for name in imports(file):
            candidate = Path(*name.split(".")).with_suffix(".py")
            if name.startswith("deploy_cli.") and (ROOT / candidate).is_file():
                waiting.append(candidate)
    return sorted(found)


def calls(file: Path) -> set[str]:
    named = (node.func for node in ast.walk(ast.parse(text(file))) if isinstance(node, ast.Call))
    return {name.id if isinstance(name, ast.Name) else getattr(name, "attr", "") for name in named}


def test_the_plan_does_no_io_but_reading_its_data() -> None:
    seen = planner()
    assert len(seen) > 8, "the planner's files were not found"
    for file in seen:
        modules = {name.split(".")[0] for name in imports(file)} & DOORS
        # `exists` is a function that the caller hands in (SiteInput.exists), so that a test needs no files.
        used = (calls(file) - {"exists"}) & READS if file.name == "models.py" else calls(file) & READS
        if file.name == "engine_args.py":  # the engine's own list of arguments, kept beside it by version
            assert modules <= {"pathlib"} and used <= {"read_text", "glob", "exists", "is_file"}
            assert re.findall(r"(?<!Key)Path\(.*", text(file)) == ['Path(__file__).parent / "data"']
        else:
            assert not modules and not used, f"{file} imports {sorted(modules)} and calls {sorted(used)}"


def test_only_the_doors_of_the_plan_read_files() -> None:
    others = {file.name for file in files() if file.parent == Path("deploy_cli/plan") and file.suffix == ".py"}
    assert others - {file.name for file in planner()} <= {"__init__.py", "collect.py", "sources.py", "groups.py"}


def test_programs_for_hosts_stand_alone_and_each_has_its_action() -> None:
    programs = [file for file in files() if file.parent == Path("playbooks/programs")]
    assert len(programs) >= 3
    for file in programs:
        foreign = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names)
        assert not foreign, f"{file} goes to hosts that have no {sorted(foreign)}"
        assert f'self.ask("{file.stem}"' in text(f"playbooks/action_plugins/{file.name}")
