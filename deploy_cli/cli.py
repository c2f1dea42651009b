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
from deploy_cli.errors import DeployctlError, ExitCode
from deploy_cli.request import Request

CANCELLED = 130
Decorator = Callable[[Any], Any]


def _inventories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    known = [CompletionItem(name) for name in paths.known_inventories() if name.startswith(incomplete)]
    return known or [CompletionItem(incomplete, type="file")]


INVENTORY = click.argument("inventory", type=click.Path(path_type=Path), shell_complete=_inventories)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FORCE = ("DEPLOYCTL_BUNDLE_FORCE", "1")
SWITCHES = {
    "allow_gap": "DEPLOYCTL_ALLOW_GAP",
    "take_over": "DEPLOYCTL_TAKE_OVER",
    "no_reboot": "DEPLOYCTL_NO_REBOOT",
}
TOLD = (
    click.option(
        "-v", "--verbose", "verbosity", count=True, help="More in the log (-vvv even more); -vv shows tracebacks."
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress, only the result."),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; progress goes to stderr."),
    click.option("--show-command", is_flag=True, help="Print the equal ansible-playbook line and do nothing."),
)
COMMON = (
    click.option(
        "-e", "--extra-vars", multiple=True, metavar="VARS", help="key=value, YAML/JSON or @file (repeatable)."
    ),
    click.option("-J", "--ask-vault-pass", is_flag=True, help="Ask for the vault password."),
    click.option("--vault-password-file", multiple=True, metavar="FILE", help="File with the vault password."),
    *TOLD,
)
REACH = (
    click.option("-f", "--forks", type=click.IntRange(1), help="Hosts worked on at a time."),
    click.option("-K", "--ask-become-pass", is_flag=True, help="Ask for the become (sudo) password."),
)
HOSTS = (
    click.option("-l", "--limit", default="", metavar="PATTERN", help="Only these hosts."),
    *REACH,
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
ROLLS = (
    click.option(
        "--allow-gap",
        is_flag=True,
        help="Let a model be away while its only replica is replaced, where HAProxy may not hold its requests.",
    ),
    click.option("--no-reboot", is_flag=True, help="End where a host must be rebooted for its GPU driver, and say so."),
    click.option("--take-over", is_flag=True, help="Go on though a run of a machine that is gone still has the hosts."),
)


def _flags(*groups: tuple[Decorator, ...]) -> Decorator:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return add


def _options(*groups: tuple[Decorator, ...]) -> Decorator:
    return _flags((INVENTORY,), *groups)


def _switches(options: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Take the options out that playbooks read from the environment."""
    return tuple((variable, "1") for name, variable in SWITCHES.items() if options.pop(name))


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
@click.argument("site", metavar="SITE")
@click.argument("hosts", nargs=-1, required=True, metavar="[USER@]HOST...")
@click.option("--gateway", default="", metavar="[USER@]HOST", help="Host of the gateway.  [default: the first]")
@click.option("--telemetry", default="", metavar="[USER@]HOST", help="Host of the traces.  [default: the gateway's]")
@click.option(
    "--inventories",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("inventories"),
    show_default=True,
    metavar="DIR",
    help="Folder to write to.",
)
@click.option("--force", is_flag=True, help="Replace files that are there; what changes is shown.")
@click.option("-C", "--check", is_flag=True, help="Write nothing; print what would be written.")
@_flags(REACH, TOLD)
def init(
    site: str, hosts: tuple[str, ...], gateway: str, telemetry: str, folder: Path, force: bool, **options: Any
) -> int:
    """Look at new hosts over SSH and write their inventory. Changes nothing on them.

    Hosts are named as for ssh: ports, jump hosts and keys come from your ssh config; host keys are checked.

    \b
    deployctl init lab root@192.0.2.10
    deployctl init lab admin@gpu1 admin@gpu2 --gateway admin@front -K
    """
    from deploy_cli.init import targets

    try:
        wanted = targets.wanted(site, hosts, gateway, telemetry)
    except DeployctlError as error:
        shown = Output(as_json=options["as_json"])
        return commands.tell_error(str(error), error.hint, error.exit_code, shown)
    told = wanted.environment(str(folder), force=force)
    options |= {"inventory": folder / f"{site}.yml", "hosts": tuple(one.word for one in wanted.targets)}
    return _start("init", commands.init, options, environment=told)


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
@_options(HOSTS, CHANGES, ROLLS, COMMON)
@click.option("--bundle", type=FILE, help="Take everything out of this file (see `bundle`); needs no network.")
def up(bundle: Path | None, **options: Any) -> int:
    """Bring the site to what the inventory says, and judge it.

    \b
    deployctl up inventories/local.yml
    deployctl up inventories/lenovo-sr675.yml -t haproxy -C -D
    deployctl up inventories/lenovo-sr675.yml --bundle lenovo-sr675.bundle.tar
    """
    chosen = (("DEPLOYCTL_BUNDLE", str(bundle.absolute())),) if bundle else ()
    return _start("up", commands.site_run, options, environment=(*chosen, *_switches(options)))


@cli.command()
@_options(HOSTS, CHANGES, ROLLS, COMMON)
def swap(**options: Any) -> int:
    """Replace the instances whose settings changed, one by one, while the others serve.

    The same path as `up`: the first new instance of a model is the canary; a change that does not work is taken back.

    \b
    deployctl swap inventories/local.yml -C      # which instances would move
    deployctl swap inventories/local.yml
    """
    return _start("swap", commands.site_run, options, environment=_switches(options))


@cli.command()
@_options(HOSTS, CHANGES, ROLLS, COMMON)
@click.option(
    "--to", "state", default="", metavar="STATE", help="An id of `history`; default: the last accepted state."
)
def rollback(state: str, **options: Any) -> int:
    """Return to an accepted state, whatever the inventory says now.

    In step with the last accepted state, the one before it is meant. The inventory is not changed: the next `up`
    follows it again. How hosts are reached, and the keys, stay as the inventory has them.

    \b
    deployctl rollback inventories/local.yml
    deployctl rollback inventories/local.yml --to 20261120T213900-up
    """
    chosen = (("DEPLOYCTL_STATE", state),) if state else ()
    return _start("rollback", commands.site_run, options, environment=(*chosen, *_switches(options)))


@cli.command()
@_options(HOSTS, COMMON)
@click.argument("states", nargs=-1, metavar="[STATE STATE]")
def history(states: tuple[str, ...], **options: Any) -> int:
    """List the states that the site was judged in, newest first; of two states, say what differs.

    Ends with 3 when a host did not answer: what it knows is missing. `rollback` does not begin then.

    \b
    deployctl history inventories/local.yml
    deployctl history inventories/local.yml 20261120T2139 20261121T0702
    """
    if len(states) not in (0, 2):
        raise click.UsageError("history takes no state, or two to compare")
    chosen = (("DEPLOYCTL_STATES", ",".join(states)),) if states else ()
    return _start("history", commands.history, options, environment=chosen)


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
