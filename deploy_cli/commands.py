"""What each command does, from a request to an exit code; cli.py only reads the command line."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import Abort

from deploy_cli import paths
from deploy_cli.errors import DeployctlError, ExitCode, PlanRefusedError, UsageError
from deploy_cli.request import Request, check_tags

if TYPE_CHECKING:
    from rich.console import Console

    from deploy_cli.display import Display
    from deploy_cli.outcome import Outcome
    from deploy_cli.progress import Progress

CHANGING = {"up", "swap", "rollback", "accept", "down"}  # one at a time per site
TABLES = {"status", "doctor", "diff", "history", "init"}


@dataclass(frozen=True)
class Output:
    """How the user wants to be told: as_json = one JSON document on stdout, everything else on stderr."""

    as_json: bool = False
    quiet: bool = False
    show_command: bool = False
    files: bool = False  # how files differ, for `diff`
    debug: bool = False


def start(request: Request, output: Output, command: Callable[[Request, Output], int]) -> int:
    """Check the inventory, print the command if only that is wanted, else run; every error becomes an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks ends no command
    try:
        if not request.hosts:  # else there is none yet
            check_inventory(request.inventory)
        if output.show_command:
            print(request.command_line())
            return ExitCode.ACCEPTED
        check_tags(request)
        return command(with_passwords(request), output)
    except DeployctlError as error:
        problems = [p.as_dict() for p in getattr(error, "problems", [])]
        return tell_error(str(error), error.hint, error.exit_code, output, problems)
    except (BrokenPipeError, Abort):  # Abort: Ctrl-C, or an end of the input, at a prompt
        raise
    except Exception as error:
        if output.debug or os.environ.get("DEPLOYCTL_DEBUG") == "1":
            traceback.print_exc()
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "; ".join(getattr(error, "__notes__", [])) or "DEPLOYCTL_DEBUG=1 shows the traceback"
        return tell_error(words, hint, ExitCode.OWN_FAULT, output)


def check_inventory(inventory: Path) -> None:
    """Refuse an inventory that is not there or is no YAML, before Ansible starts. UsageError, PlanRefusedError."""
    if not inventory.exists():
        near = paths.near_inventories(str(inventory))
        raise UsageError(
            f"there is no inventory {inventory}",
            f"did you mean {' or '.join(near)}?" if near else "an inventory is a file such as inventories/local.yml",
        )
    from deploy_cli.plan.sources import unreadable

    problems = unreadable(str(inventory))
    if problems:
        raise PlanRefusedError(problems, str(inventory))


def with_passwords(request: Request) -> Request:
    """Ask for the passwords that -J and -K announce, once, before anything is drawn."""
    from click import prompt

    if request.ask_vault_pass:
        request = replace(request, vault_pass=prompt("Vault password", hide_input=True, err=True))
    if request.ask_become_pass:
        request = replace(request, become_pass=prompt("Become password", hide_input=True, err=True))
    return request


def tell_error(
    what: str, hint: str, code: ExitCode, output: Output, problems: list[dict[str, Any]] | None = None
) -> int:
    """Say what is wrong, on stderr; as JSON on stdout too when that was asked for."""
    if output.as_json:
        status = "refused" if code == ExitCode.REFUSED else "error"
        told = {
            "status": status,
            "exit_code": int(code),
            "message": what,
            "hint": hint,
            "problems": problems or [],
            "failures": [],
        }
        print(json.dumps(told, indent=1, ensure_ascii=False))
    print(f"deployctl: {what}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def site_run(request: Request, output: Output) -> int:
    """Run plan, up, accept or down, and show how it ended."""
    from deploy_cli.lock import site_lock
    from deploy_cli.summary import show

    console = _console(stderr=output.as_json)
    locked = request.command in CHANGING and not request.check
    if locked:
        paths.check_runs_dir()
    with site_lock(request.inventory, request.command, paths.runs_dir()) if locked else nullcontext():
        outcome, _found = _execute(request, output, console)
    if output.as_json:
        _print_json(outcome.document())
    show(outcome, console)
    return outcome.exit_code


def status(request: Request, output: Output) -> int:
    """Show the instances in one table; 0 when all are healthy, else 3."""
    from deploy_cli.status import lines, table

    outcome, document = _ask(request, output, "status.json")
    if document is None:
        return outcome.exit_code
    if output.as_json:
        _print_json(document)
    else:
        told = _console()
        if told.is_terminal:
            told.print(table(document))
        else:
            print("\n".join(lines(document)))
        for host, answer in document["gateways"].items():
            if answer != "ok":
                print(f"HAProxy on {host}: {answer}")
    return ExitCode.ACCEPTED if document["ok"] else ExitCode.HOST_FAILED


def doctor(request: Request, output: Output) -> int:
    """Show what was found on each host; 0 when there is no problem, else 3."""
    from deploy_cli.doctor.lines import by_host, plain, table

    outcome, answer = _ask(request, output, "doctor.json")
    if answer is None:
        return outcome.exit_code
    if output.as_json:
        _print_json(answer)
    elif (told := _console()).is_terminal:
        for host, lines in by_host(answer).items():
            told.print(table(host, lines))
    else:
        print("\n".join(plain(answer)))
    return ExitCode.ACCEPTED if answer["ok"] else ExitCode.HOST_FAILED


def history(request: Request, output: Output) -> int:
    """Show the states that the hosts keep, or what differs between two of them; 3 when a host did not answer."""
    from deploy_cli.history import lines, table, unanswered

    outcome, told = _ask(request, output, "history.json", lasting=False)
    if told is None:
        return outcome.exit_code
    if output.as_json:
        _print_json(told)
    elif (screen := _console()).is_terminal and told["states"] and "differences" not in told:
        screen.print(table(told))
    else:
        print("".join(f"{line}\n" for line in lines(told)), end="")
    if told["unseen"]:
        # What the others know may not be all: a run that a host missed, or alone was part of, is not in it.
        print(unanswered(told["unseen"]), file=sys.stderr)
        print("hint: see that `ssh` to it works, or leave it out with --limit", file=sys.stderr)
        return ExitCode.HOST_FAILED
    return outcome.exit_code


def diff(request: Request, output: Output) -> int:
    """Show what is not as the inventory says; 0 when nothing is, 5 when something is, 3 when a host failed."""
    from deploy_cli.drift import lines, table
    from deploy_cli.summary import show, show_end

    console = _console(stderr=True)
    outcome, _found = _execute(request, output, console)
    if output.as_json:
        _print_json(outcome.document())
        return outcome.exit_code
    told = _console()
    if outcome.changes and told.is_terminal and not output.files:
        told.print(table(outcome.changes))
    elif outcome.changes:
        print("\n".join(lines(outcome.changes, files=output.files)))
    if outcome.status == "ok":
        print(f"in step: {', '.join(outcome.hosts)}")
    elif outcome.status == "drifted":
        show_end(outcome, console)
    else:
        show(outcome, console)
    return outcome.exit_code


def env(request: Request, output: Output) -> int:
    """Print what a client needs as NAME=value lines, and nothing else on stdout. Leaves no run folder."""
    from deploy_cli.status import env_lines

    outcome, values = _ask(request, output, "env.json", lasting=False)
    if values is None:
        return outcome.exit_code
    if output.as_json:
        _print_json(values)
    else:
        print("\n".join(env_lines(values)))
    return ExitCode.ACCEPTED


def report(request: Request, output: Output) -> int:
    """Write the report of a past run again and show its verdict. Leaves no run folder of its own."""
    from deploy_cli.summary import show_acceptance

    outcome, told = _ask(request, output, "result.json", lasting=False)
    if told is None:
        return outcome.exit_code
    acceptance = paths.read_json(Path(told["run"]) / "acceptance.json") or {}
    if output.as_json:
        _print_json({**told, "acceptance": acceptance})
    else:
        show_acceptance(acceptance, _console())
        print("\n".join(told["files"]))
    return ExitCode.ACCEPTED


def bundle(request: Request, output: Output) -> int:
    """Write a bundle; show what is in it, its id, and how it is used."""
    from deploy_cli.bundle.report import lines
    from deploy_cli.summary import show

    console = _console(stderr=output.as_json)
    outcome, found = _execute(request, output, console)
    packed = found.get("bundle.json")
    if output.as_json:
        _print_json({**outcome.document(), "bundle": packed})
    show(outcome, console)
    if packed and not output.as_json:
        print("\n".join(lines(packed, request.inventory)))
    return outcome.exit_code


def init(request: Request, output: Output) -> int:
    """Write the inventory of new hosts; 2 when files are in the way, 3 when a host cannot be looked at."""
    from deploy_cli.init.report import message
    from deploy_cli.init.write import check

    check(request.inventory, dry=request.check)
    outcome, answer = _ask(request, output, "init.json")
    if answer is None:
        return outcome.exit_code
    code = {"failed": ExitCode.HOST_FAILED, "refused": ExitCode.REFUSED}.get(answer["status"], ExitCode.ACCEPTED)
    if output.as_json:
        _print_json({**answer, "exit_code": int(code)})
    else:
        print("\n".join(message(answer)), file=sys.stderr if code else sys.stdout)
    return code


def _ask(
    request: Request, output: Output, answer: str, *, lasting: bool = True
) -> tuple[Outcome, dict[str, Any] | None]:
    """Run; return the outcome and the document `answer`. Without one, how the run ended is shown: there is no more."""
    from deploy_cli.summary import show

    console = _console(stderr=True)
    outcome, found = _execute(request, output, console, lasting=lasting)
    document: dict[str, Any] | None = found.get(answer)
    if document is None:
        if output.as_json:
            _print_json(outcome.document())
        show(outcome, console)
    return outcome, document


def _execute(
    request: Request, output: Output, console: Console, *, lasting: bool = True
) -> tuple[Outcome, dict[str, Any]]:
    from deploy_cli.display import make_display
    from deploy_cli.run import execute

    if lasting:
        paths.check_runs_dir()

    def display(progress: Progress) -> Display:
        # What leaves no folder is over in two seconds and has nothing to tell on the way; what ends in a table tells
        # it there.
        quiet = output.quiet or (not console.is_terminal and (not lasting or request.command in TABLES))
        return make_display(progress, console, f"deployctl {request.command} {request.inventory}", quiet=quiet)

    return execute(request, display, lasting=lasting)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    from deploy_cli.display import mute

    class Steady(Console):
        def on_broken_pipe(self) -> None:
            """Go on in silence (`| head`): rich would end the program, in the middle of a change."""
            mute(self.file)

    return Steady(stderr=stderr)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False))
