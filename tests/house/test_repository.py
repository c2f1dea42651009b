"""The repository as a whole: lint without exceptions, nothing of one machine in it, dependencies used and explained."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from house import ROOT, below, files, importers, lines_with, read_yaml, text

from deploy_cli import cli
from deploy_cli.errors import ExitCode

PYPROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
RUNTIME: list[str] = PYPROJECT["project"]["dependencies"]
DEV: list[str] = PYPROJECT["project"]["optional-dependencies"]["dev"]
MODULES = {"haproxy-stats": "haproxystats", "ansible-runner": "ansible_runner", "pyyaml": "yaml"}
# Used without an import of ours: (file, what stands there).
BY_OTHERS = {
    "requests": ("roles/jaeger/tasks/start.yml", "community.docker.docker_container"),  # which imports it
    "ansible-lint": ("Makefile", "ansible-lint"),
    "molecule": ("Makefile", "molecule test"),
    "mypy": ("Makefile", "mypy"),
    "ruff": ("Makefile", "ruff check"),
}


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found.group().lower().replace("_", "-")


def dotted(*parts: str) -> str:
    """A host's name as a pattern, in pieces here so that this file does not hold it."""
    return r"\b" + r"\.".join(parts) + r"\b"


HOSTS = [
    dotted("pypi", "org"),
    dotted("pythonhosted", "org"),
    dotted("golang", "org") + "(?!/)",  # golang.org/x/... is the name of a module, not a host that is asked
    dotted("goproxy", "(io|cn)"),
    dotted("npmjs", "(org|com)"),
    dotted("(deb|security|ftp|snapshot|archive)", "debian", "org"),
    dotted("archive", "ubuntu", "com"),
    dotted("crates", "io"),
    dotted("(quay|ghcr|nvcr|gcr)", "io") + "/",
    dotted("docker", "io") + "/",
    dotted("hub", "docker", "com"),
    dotted("huggingface", "co"),
    dotted("galaxy", "ansible", "com"),
]
MACHINE_PATHS = r"(?<![\w.~}-])/(" + "|".join(["wor" + "k", "far" + "m", "roo" + "t"]) + r")(/|\b(?!\w|-))"


# Asks whether they can be reached, so it has to know where they are when the site says nothing else.
ASKED = ("roles/host_checks/defaults/main.yml", "docs/roles.md")


def test_no_file_names_a_registrys_host() -> None:
    assert lines_with("|".join(HOSTS), [file for file in files() if str(file) not in ASKED]) == []
    found = lines_with("|".join(HOSTS), [Path(file) for file in ASKED])
    assert len(found) == 4 and all("host_checks_" in line for line in found)


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    # In an image, root's home is a folder of the image.
    where = [file for file in files() if file.name != "Dockerfile" and file.suffix not in (".sum", ".lock")]
    assert lines_with(MACHINE_PATHS, where) == []


def test_lint_has_the_strictest_profile_and_no_exceptions() -> None:
    settings = read_yaml(".ansible-lint")
    assert settings["profile"] == "production"
    assert settings["offline"] is True
    assert not settings.get("skip_list") and not settings.get("warn_list")
    left_out = settings.get("exclude_paths", [])
    assert not [file for file in files() if str(file).startswith(tuple(left_out))], "only what git ignores is left out"
    assert lines_with(r"\bnoqa\b", below("roles", "playbooks", "molecule", "inventories", suffixes=(".yml",))) == []


def test_lint_of_python_has_reasons_for_what_it_leaves_out() -> None:
    block = re.search(r"^ignore = \[\n(.*?)^\]", text("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert block
    assert [line for line in block.group(1).splitlines() if "#" not in line] == []
    assert [
        line
        for line in lines_with(r"#\s*(noqa|type: ignore)", [file for file in files() if file.suffix == ".py"])
        if not re.search(r"# (noqa: [A-Z0-9, ]+ - \w|type: ignore\[[\w, -]+\])", line)
        and not line.startswith("tests/house/test_repository.py:")
    ] == [], "an exception names its rule and argues: `noqa: RULE - why`"


@pytest.mark.parametrize("requirement", [*RUNTIME, *DEV])
def test_every_dependency_is_used_explained_and_bounded(requirement: str) -> None:
    name = name_of(requirement)
    assert re.search(rf"^\| `{re.escape(name)}` \|", text("docs/dependencies.md"), re.MULTILINE), "docs/dependencies.md"
    if name in BY_OTHERS:
        file, words = BY_OTHERS[name]
        assert words in text(file)
        return
    typed = name.removeprefix("types-")
    users = importers(MODULES.get(typed, typed.replace("-", "_")))
    if requirement in RUNTIME:
        users = [user for user in users if user.split("/")[0] in ("deploy_cli", "roles", "playbooks")]
    assert users, f"nothing uses {name}"
    assert name.startswith("types-") or "<" in requirement, f"{requirement} has no upper bound"


def test_no_dependency_is_explained_that_is_not_there() -> None:
    explained = re.findall(r"^\| `([a-z0-9-]+)` \|", text("docs/dependencies.md"), re.MULTILINE)
    assert sorted(explained) == sorted(name_of(requirement) for requirement in [*RUNTIME, *DEV])


def version(words: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", words))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_what_pyproject_asks_for(lock: str) -> None:
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text(lock), re.MULTILINE))
    for requirement in RUNTIME if lock == "requirements.lock" else [*RUNTIME, *DEV]:
        name = name_of(requirement)
        assert name in locked, f"{name} is not in {lock}"
        for sign, bound in re.findall(r"(>=|<)([\d.]+)", requirement):
            fits = version(locked[name]) >= version(bound) if sign == ">=" else version(locked[name]) < version(bound)
            assert fits, f"{lock} has {name} {locked[name]}, pyproject asks for {requirement}"


def test_the_page_of_the_roles_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate_roles.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_decisions_have_context_decision_and_price() -> None:
    pages = sorted(file for file in files() if file.parts[:2] == ("docs", "adr"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        for part in ("## Context", "## Decision", "## Price"):
            assert part in text(page), f"{page} has no {part}"


def test_ci_calls_the_test_command_of_the_readme() -> None:
    for file in (".ci/run", ".github/workflows/ci.yml"):
        assert re.search(r"^\s*(run: sudo )?make test$", text(file), re.MULTILINE), file
    assert "make test" in text("README.md")


def test_readme_names_every_command_and_exit_code() -> None:
    readme = text("README.md")
    assert [name for name in cli.cli.commands if f"`{name}`" not in readme and f"deployctl {name}" not in readme] == []
    drawn = {int(code) for row in re.findall(r"^\| ([\d, /]+) \|", readme, re.MULTILINE) for code in version(row)}
    assert drawn == {*set(ExitCode), 130, 143}


def test_every_line_of_the_readme_is_one_that_the_command_takes() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", text("README.md"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("deployctl ")]
    assert len(lines) > 10
    for line in lines:
        _, name, *words = shlex.split(line.partition(">")[0], comments=True)
        command = cli.cli.commands[name].make_context(name, words)
        given = command.params.get("inventory")
        assert given is None or given.suffix == ".yml", f"no inventory: {line}"


@pytest.mark.parametrize("page", [str(file) for file in files() if file.suffix == ".md"])
def test_links_inside_the_repository_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\":]+)\"", text(page))
    assert [target for pair in linked for target in pair if target and not (folder / target).exists()] == []
