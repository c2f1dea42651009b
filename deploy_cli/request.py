"""What the user asked for, and the ansible-playbook line that does the same.

deployctl adds no setting of its own: a request holds what stood on the command line, in Ansible's words.
"""

from __future__ import annotations

import difflib
import json
import locale
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from deploy_cli import paths
from deploy_cli.errors import UsageError

SPECIAL_TAGS = {"all", "always", "never", "tagged", "untagged"}


@dataclass(frozen=True)
class Request:
    """One command on one inventory. Every option means what ansible-playbook means by its letter."""

    command: str
    inventory: Path
    limit: str = ""
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False
    extra_vars: tuple[str, ...] = field(default=(), repr=False)
    verbosity: int = 0
    forks: int | None = None
    vault_password_file: tuple[str, ...] = ()
    ask_vault_pass: bool = False
    ask_become_pass: bool = False
    vault_pass: str = field(default="", repr=False)
    become_pass: str = field(default="", repr=False)
    environment: tuple[tuple[str, str], ...] = ()  # variables that the command's playbook reads
    hosts: tuple[str, ...] = ()  # of a command that comes before any inventory

    @property
    def source(self) -> str:
        """What ansible-playbook is given with -i: the inventory, or the hosts themselves."""
        return ",".join([*self.hosts, ""]) if self.hosts else str(self.inventory)

    def options(self, extra_vars: Iterable[str]) -> list[str]:
        """Return ansible-playbook's options, with these values for -e."""
        words: list[str] = []
        if self.limit:
            words += ["--limit", with_localhost(self.limit)]
        if self.tags:
            words += ["--tags", ",".join(self.tags)]
        if self.skip_tags:
            words += ["--skip-tags", ",".join(self.skip_tags)]
        words += ["--check"] * self.check + ["--diff"] * self.diff
        for value in extra_vars:
            words += ["-e", value]
        if self.verbosity:
            words.append("-" + "v" * self.verbosity)
        if self.forks:
            words += ["--forks", str(self.forks)]
        for file in self.vault_password_file:
            words += ["--vault-password-file", file]
        words += ["--ask-vault-pass"] * self.ask_vault_pass + ["--ask-become-pass"] * self.ask_become_pass
        return words

    def command_line(self) -> str:
        """Return the shell line that does the same without deployctl."""
        before = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        if paths.content_dir() != Path.cwd():  # Ansible finds its ansible.cfg in the current folder only
            before.insert(0, f"ANSIBLE_CONFIG={shlex.quote(_short(paths.ansible_cfg()))}")
        playbook = _short(paths.playbook(self.command))
        words = ["ansible-playbook", "-i", self.source, playbook, *self.options(self.extra_vars)]
        return " ".join([*before, shlex.join(words)])

    def passwords(self) -> dict[str, str]:
        """Return the answers to Ansible's own prompts, as {pattern: answer}; they never stand in a file or in argv."""
        found = {}
        if self.ask_vault_pass:
            found[r"Vault password:\s*$"] = self.vault_pass
        if self.ask_become_pass:
            found[r"BECOME password.*:\s*$"] = self.become_pass
        return found


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def with_localhost(limit: str) -> str:
    """Add localhost to a limit: the plan is made there, and without a plan no other play knows what to do.

    A limit of exclusions only (`!node2`) means "all but": the `all` has to be said once localhost is named.
    """
    patterns = [part for part in re.split(r"[,:](?![^\[]*\])", limit) if part]
    if "localhost" in patterns or any(part.startswith("&") for part in patterns):
        return limit
    plain = [part for part in patterns if not part.startswith("!")]
    return ",".join([*([] if plain else ["all"]), *patterns, "localhost"])


def environment(run_dir: Path, request: Request) -> dict[str, str]:
    """Return what the child's environment gets besides ours: configuration, run folder, our programs first."""
    # Not resolved: sys.executable of a virtual environment is a link, and its folder is what counts.
    programs = str(Path(sys.executable).parent)
    return {
        "ANSIBLE_CONFIG": str(paths.ansible_cfg()),
        "DEPLOYCTL_RUN_DIR": str(run_dir),
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        # Empty is unset for Python: without compiled plugins each start costs more.
        "PYTHONDONTWRITEBYTECODE": "",
        # ansible-runner turns host key checking off unless it is told.
        "ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
        "ANSIBLE_NOCOLOR": "1",  # the log is read in files
        # The runner builds its own on this one; another writes a document of its own, and events are lost.
        "ANSIBLE_STDOUT_CALLBACK": "default",
        **({} if _locale_does() else {"LC_ALL": "C.UTF-8"}),
        **dict(request.environment),
    }


def _locale_does() -> bool:
    """Say whether Ansible takes the user's locale: it asks the same, and ends where it is not there or not UTF-8."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        encoding = locale.getlocale()[1] or ""
    except (locale.Error, ValueError):
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return encoding.lower() in ("utf-8", "utf8")


def extra_vars_files(request: Request, folder: Path) -> list[str]:
    """Write each -e value into a file (0600) and return the `@file` words that stand for them.

    argv is public on a machine: a secret given by -e must not stand there a second time, for the whole length of a run.
    UsageError for what is neither key=value nor a YAML/JSON map nor @file with one: Ansible would blame the inventory.
    """
    words = []
    for number, value in enumerate(request.extra_vars):
        if value.startswith("@"):
            _check_file(value)
            words.append(value)
            continue
        text = value if value.startswith(("{", "[")) else json.dumps(_pairs(value))
        if value.startswith(("{", "[")):
            _check_map(value)
        file = folder / f"extra-vars-{number}.yml"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
            handle.write(text + "\n")
        words.append(f"@{file}")
    return words


_FORMS = '-e key=value, -e \'{"key": "value"}\' or -e @file.yml'


def _check_file(value: str) -> None:
    """Refuse an @file that is not there or holds no map; what is encrypted is left to Ansible, which has the key."""
    from deploy_cli.plan import sources

    file = Path(value[1:]).expanduser()
    if not file.is_file():
        raise UsageError(f"-e {value}: there is no such file", "a path is meant from the current folder on")
    wrong = [problem for problem in sources.check_file(file) if problem.what.startswith(sources.UNREADABLE)]
    if wrong:
        raise UsageError(f"-e @{wrong[0].where}: {wrong[0].what}", wrong[0].hint)
    if not sources.holds_map(file.read_text(encoding="utf-8")):
        raise UsageError(f"-e {value}: it is no map of variables", "write `key: value` lines")


def _check_map(text: str) -> None:
    """Refuse a text that is no map. What the reader says of it is not repeated: it may quote a secret."""
    from deploy_cli.plan import sources

    if any(p.what.startswith(sources.UNREADABLE) for p in sources.check_text(text, "")) or not sources.holds_map(text):
        raise UsageError("-e is no YAML or JSON map", f"for example {_FORMS}; mind the quotes of the shell")


def _pairs(value: str) -> dict[str, str]:
    from ansible.parsing.splitter import parse_kv  # Ansible's own reading of `a=1 b="2 3"`

    found = {str(key): str(text) for key, text in parse_kv(value).items()}
    if not found or "_raw_params" in found:
        # The value is not repeated: it may be half of a secret.
        raise UsageError(
            "-e needs key=value pairs, a YAML or JSON map, or @file", "for example -e key=value or -e @file.yml"
        )
    return found


def check_tags(request: Request) -> None:
    """Refuse tags that no task has: to Ansible they are a run that succeeds with nothing done. UsageError."""
    wanted = [tag for text in request.tags for tag in text.split(",") if tag]
    if not wanted:
        return
    known = playbook_tags(request)
    unknown = [tag for tag in wanted if tag not in known | SPECIAL_TAGS]
    if known and unknown:
        near = [close for tag in unknown for close in difflib.get_close_matches(tag, known, n=1)]
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UsageError(
            f"no task of playbooks/{request.command}.yml has the tag {', '.join(unknown)}",
            f"{hint}known tags: {', '.join(sorted(known))}",
        )


def playbook_tags(request: Request) -> set[str]:
    """Return the tags of a command's playbook; empty when Ansible cannot list them (the run itself will say why)."""
    # No inventory: the tags do not depend on it, and it may need a vault password.
    words = ["ansible-playbook", "-i", "localhost,", "--list-tags", str(paths.playbook(request.command))]
    env = {**os.environ, **environment(Path(os.devnull), request)}
    listed = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)
    if listed.returncode:
        return set()
    groups = re.findall(r"TAGS: \[([^\]]*)\]", listed.stdout)
    return {tag.strip() for group in groups for tag in group.split(",") if tag.strip()}
