"""What stands on the terminal when a run has ended: problems, failures, recap, verdict, and where the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy_cli.display import failure_text, recap_lines
from deploy_cli.errors import Problem, render_problems
from deploy_cli.outcome import Outcome
from deploy_cli.progress import clock

if TYPE_CHECKING:
    from rich.console import Console


def show(outcome: Outcome, console: Console) -> None:
    """Write the end of a run."""
    _write(console, "")
    if outcome.problems:
        problems = [to_problem(problem) for problem in outcome.problems]
        _write(console, render_problems(problems, str(outcome.request.inventory)))
    elif outcome.status == "rejected":
        _write(console, "")  # the checks below say what failed; the task that only says so again is left out
    elif outcome.failures:
        console.print(failure_text(outcome.failures), soft_wrap=True, end="")
    if outcome.request.command == "plan" and outcome.status == "ok" and outcome.plan:
        show_plan(outcome.plan, str(outcome.request.inventory), console)
    if not outcome.problems and outcome.request.command != "plan":
        for line in recap_lines(outcome.hosts, check=outcome.request.check):
            _write(console, line)
    if outcome.acceptance is not None:
        show_acceptance(outcome.acceptance, console)
    show_end(outcome, console)


def show_end(outcome: Outcome, console: Console) -> None:
    """Write the last lines: how it ended, and the run folder."""
    command, took = outcome.request.command, clock(outcome.seconds)
    if outcome.status in ("accepted", "rejected"):
        _write(console, f"{command}: exit code {int(outcome.exit_code)}, {took}", "dim")  # the verdict stands above
    elif outcome.status == "in_step":
        _write(console, f"{outcome.message}: nothing was done, in {took}.", "bold green")
    elif outcome.exit_code == 0:
        end = "" if command != "up" or outcome.request.check else " (the acceptance did not run)"
        _write(console, f"{command} is done in {took}{end}", "green")
    elif not outcome.problems or outcome.status == "failed":
        _write(console, f"{command}: {outcome.message} (exit code {int(outcome.exit_code)}, {took})", "bold red")
    if outcome.hint:
        _write(console, f"hint: {outcome.hint}", "cyan")
    if outcome.run_dir is not None:
        _write(console, f"run folder: {outcome.run_dir}", "dim")
        if outcome.status in ("failed", "error", "cancelled"):
            _write(console, f"whole log:  {outcome.run_dir}/stdout", "dim")


def show_plan(plan: Mapping[str, Any], inventory: str, console: Console) -> None:
    """Write what would run where, and the plan's warnings."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("INSTANCE", "MODEL", "HOST", "DEVICE", "ADDRESS"):
        table.add_column(title, overflow="fold")  # a name that is cut cannot be copied
    for instance in plan["instances"]:
        devices = ",".join(str(number) for number in instance["devices"])
        address = f"{instance['publish_address']}:{instance['port']}"
        names = (instance["name"], instance["model"], instance["host"])
        table.add_row(*names, f"{instance['device_kind']} {devices}", address)
    console.print(table, markup=False)
    gateway = plan["gateway"]
    _write(console, f"gateway {gateway['base_url']} on {', '.join(gateway['hosts'])}")
    _write(console, f"traces  {plan['telemetry']['jaeger_url']} on {', '.join(plan['telemetry']['hosts'])}")
    blind = [host for host, known in plan["hosts"].items() if known["declared"] and known["devices"]]
    if blind:
        _write(console, f"devices as declared, no host was looked at: {', '.join(blind)}")
    warnings = [to_problem({**warning, "severity": "warning"}) for warning in plan.get("warnings", [])]
    if warnings:
        _write(console, "\n" + render_problems(warnings, inventory), "yellow")


def show_acceptance(acceptance: Mapping[str, Any], console: Console) -> None:
    """Write the checks, the load, and the verdict last."""
    from deploy_cli.bench import report

    console.print(report.render_terminal(acceptance))


def to_problem(data: Mapping[str, Any]) -> Problem:
    """Return a Problem of its JSON data."""
    warning = data.get("severity") == "warning"
    where, what, hint = (str(data.get(name, "")) for name in ("where", "what", "hint"))
    return Problem(where, what, hint, "warning" if warning else "error")


def _write(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
