"""The command table and its flags; no logic. Letters mean what they mean to ansible-playbook."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from deploy_cli import commands, paths
from deploy_cli.commands import Output
from deploy_cli.errors import ExitCode
from deploy_cli.request import Request

CANCELLED = 130
Decorator = Callable[[Any], Any]


def _inventories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    known = [CompletionItem(name) for name in paths.known_inventories() if name.startswith(incomplete)]
    return known or [CompletionItem(incomplete, type="file")]


INVENTORY = click.argument("inventory", type=click.Path(path_type=Path), shell_complete=_inventories)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NO_REBOOT = ("DEPLOYCTL_NO_REBOOT", "1")
FORCE = ("DEPLOYCTL_BUNDLE_FORCE", "1")
COMMON = (
    click.option(
        "-e", "--extra-vars", multiple=True, metavar="VARS", help="key=value, YAML/JSON or @file (repeatable)."
    ),
    click.option("-J", "--ask-vault-pass", is_flag=True, help="Ask for the vault password."),
    click.option("--vault-password-file", multiple=True, metavar="FILE", help="File with the vault password."),
    click.option(
        "-v", "--verbose", "verbosity", count=True, help="More in the log (-vvv even more); -vv shows tracebacks."
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only the result."),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; progress goes to stderr."),
    click.option("--show-command", is_flag=True, help="Print the equal ansible-playbook line and do nothing."),
)
HOSTS = (
    click.option("-l", "--limit", default="", metavar="PATTERN", help="Only these hosts."),
    click.option("-f", "--forks", type=click.IntRange(1), help="Hosts worked on at a time."),
    click.option("-K", "--ask-become-pass", is_flag=True, help="Ask for the become (sudo) password."),
)
TAGS = (
    click.option("-t", "--tags", multiple=True, metavar="TAGS", help="Only tasks with these tags (a role's name)."),
    click.option("--skip-tags", multiple=True, metavar="TAGS", help="All but tasks with these tags."),
)
CHANGES = (
    *TAGS,
    click.option("-C", "--check", is_flag=True, help="Change nothing; say what would change."),
    click.option("-D", "--diff", is_flag=True, help="Show how files change."),
)


def _options(*groups: tuple[Decorator, ...]) -> Decorator:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([INVENTORY, *(option for group in groups for option in group)]):
            function = option(function)
        return function

    return add


def _start(
    command: str, work: Callable[[Request, Output], int], options: dict[str, Any], files: bool = False, **more: Any
) -> int:
    """Make the request and the output of the options (they are named alike) and start."""
    chosen = {name: options.pop(name) for name in ("as_json", "quiet", "show_command")}
    output = Output(**chosen, files=files, debug=options["verbosity"] >= 2)
    return commands.start(Request(command=command, **{**options, **more}), output, work)


class Main(click.Group):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Keep the order of this file."""
        return list(self.commands)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="deployctl", prog_name="deployctl")
def cli() -> None:
    """From bare servers to an accepted LLM service: plan, deploy, judge.

    INVENTORY is a plain Ansible inventory such as inventories/local.yml. Every command is the playbook of its name;
    --show-command prints the line that does the same without deployctl.

    \b
    Exit codes:
      0  accepted, or done       3  a host failed or was unreachable
      1  our own fault           4  deployed, not accepted
      2  usage or plan refused   5  hosts and inventory differ (diff)
      130 / 143  stopped by Ctrl-C / SIGTERM; the next run finishes the work
    """


@cli.command()
@_options(COMMON)
def plan(**options: Any) -> int:
    """Say what would run where, or everything that is wrong with the inventory.

    \b
    deployctl plan inventories/local.yml
    deployctl plan inventories/local.yml --json | jq .plan.instances
    """
    return _start("plan", commands.site_run, options)


@cli.command()
@_options(HOSTS, CHANGES, COMMON)
@click.option("--bundle", type=FILE, help="Take everything out of this file (see `bundle`); needs no network.")
@click.option("--no-reboot", is_flag=True, help="End where a host must be rebooted for its GPU driver, and say so.")
def up(bundle: Path | None, no_reboot: bool, **options: Any) -> int:
    """Bring the site to what the inventory says, and judge it.

    \b
    deployctl up inventories/local.yml
    deployctl up inventories/lenovo-sr675.yml -t haproxy -C -D
    deployctl up inventories/lenovo-sr675.yml --bundle lenovo-sr675.bundle.tar
    """
    chosen = (("DEPLOYCTL_BUNDLE", str(bundle.absolute())),) if bundle else ()
    ends = (NO_REBOOT,) if no_reboot else ()
    return _start("up", commands.site_run, options, environment=(*chosen, *ends))


@cli.command()
@_options(COMMON)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: INVENTORY.bundle.tar here."
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("-C", "--check", is_flag=True, help="Write nothing; say what would be packed.")
def bundle(output: Path | None, force: bool, **options: Any) -> int:
    """Pack all that a site without a network needs: packages, images, models, deployctl itself.

    Works on this machine alone, with Docker; no host of the site is reached.

    \b
    deployctl bundle inventories/lenovo-sr675.yml -o lenovo-sr675.bundle.tar
    """
    file = (("DEPLOYCTL_BUNDLE_OUTPUT", str(output.absolute())),) if output else ()
    return _start("bundle", commands.bundle, options, environment=(*file, *((FORCE,) if force else ())))


@cli.command()
@_options(HOSTS, COMMON)
def status(**options: Any) -> int:
    """Show every instance: container, health, load, cache, and HAProxy's view of it.

    Ends with 0 when all are healthy, else with 3.

    \b
    deployctl status inventories/local.yml
    """
    return _start("status", commands.status, options)


@cli.command()
@_options(HOSTS, COMMON)
def doctor(**options: Any) -> int:
    """Look at every host: can it carry what the plan puts there? Changes nothing.

    Each line is ok, problem or hint. Ends with 0 when there is no problem, else with 3. `up` looks first, too.

    \b
    deployctl doctor inventories/local.yml
    deployctl doctor inventories/local.yml --json | jq '.lines[] | select(.state == "problem")'
    """
    return _start("doctor", commands.doctor, options)


@cli.command()
@_options(HOSTS, TAGS, COMMON)
@click.option("-D", "--diff", "files", is_flag=True, help="Show how files differ.")
def diff(files: bool, **options: Any) -> int:
    """Compare hosts and inventory: what would `up` change? Changes nothing.

    Runs up's own plays dry. Ends with 0 when hosts and inventory are in step, with 5 when they are not.

    \b
    deployctl diff inventories/local.yml
    deployctl diff inventories/local.yml -t haproxy -D
    """
    return _start("diff", commands.diff, options, files=files, check=True, diff=True)


@cli.command()
@_options(HOSTS, CHANGES, COMMON)
def accept(**options: Any) -> int:
    """Judge what runs, through the gateway; change nothing.

    \b
    deployctl accept inventories/local.yml
    """
    return _start("accept", commands.site_run, options)


@cli.command()
@_options(HOSTS, CHANGES, COMMON)
@click.option("--purge", is_flag=True, help="Remove models and images too (same as --tags all,purge).")
def down(purge: bool, **options: Any) -> int:
    """Remove the site's containers and networks; models and images stay.

    \b
    deployctl down inventories/local.yml
    deployctl down inventories/local.yml --purge
    """
    wanted = options.pop("tags")
    return _start("down", commands.site_run, options, tags=(*(wanted or ("all",)), "purge") if purge else wanted)


@cli.command()
@_options(COMMON)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A run's folder; without it, the inventory's newest run with a verdict.",
)
def report(run_folder: Path | None, **options: Any) -> int:
    """Write the report of a past run again (report.json, .md, .html in its folder).

    \b
    deployctl report inventories/local.yml
    deployctl report inventories/local.yml --run runs/20261120T213900-up
    """
    chosen = (("DEPLOYCTL_REPORT_RUN", str(run_folder.resolve())),) if run_folder else ()
    return _start("report", commands.report, options, environment=chosen)


@cli.command()
@_options(COMMON)
def env(**options: Any) -> int:
    """Print what a client needs, for a shell or a .env file.

    \b
    set -a; eval "$(deployctl env inventories/local.yml)"; set +a
    deployctl env inventories/local.yml > .env
    """
    return _start("env", commands.env, options)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell.

    \b
    deployctl completion bash > ~/.local/share/bash-completion/completions/deployctl
    """
    script = get_completion_class(shell)
    if script is not None:
        click.echo(script(cli, {}, "deployctl", "_DEPLOYCTL_COMPLETE").source())
    return ExitCode.ACCEPTED


def main() -> None:
    """Run, and end with the exit code; Ctrl-C at a prompt ends with 130, a closed pipe quietly."""
    try:
        code = cli.main(prog_name="deployctl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        code = CANCELLED
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)
