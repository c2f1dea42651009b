"""The report of a run, written from its folder alone: report.json, report.md and one self-contained report.html."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from deploy_cli import paths
from deploy_cli.errors import DeployctlError, count

if TYPE_CHECKING:
    from rich.console import RenderableType

Data = Mapping[str, Any]

TOLD_WITH_EVIDENCE = 3
PERCENTILES = ("p50", "p90", "p95", "p99")
LATENCIES = (
    ("ttft_ms", "Time to first token", "How long a reader waits for the first word"),
    ("itl_ms", "Time between tokens", "How steadily the words follow"),
    ("e2e_ms", "Time of a whole answer", "From the question to the last word"),
)
RATES = (
    ("requests_per_s", "Requests per second", "Answers completed"),
    ("output_tokens_per_s", "Tokens per second", "Words written, all answers together"),
)


class ReportError(DeployctlError):
    """The run folder holds no acceptance that a report could be written from."""


def save(run_dir: Path, acceptance: Data) -> Path:
    """Write acceptance.json, readable by its owner only. OSError when the folder cannot be written."""
    return _write(run_dir / "acceptance.json", json.dumps(acceptance, indent=2) + "\n")


def load(run_dir: Path) -> dict[str, Any]:
    """The acceptance of a run. ReportError when there is none or it is none of ours."""
    file = run_dir / "acceptance.json"
    try:
        acceptance = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError(f"{run_dir} holds no acceptance.json: the run did not come that far.") from error
    except (OSError, ValueError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    if not isinstance(acceptance, dict) or acceptance.get("version") != 1:
        raise ReportError(f"{file} is not of a version that this deployctl knows.")
    return acceptance


def write_reports(run_dir: Path) -> list[Path]:
    """Write the three reports from the folder alone; ReportError without a whole acceptance in it."""
    acceptance = load(run_dir)
    try:
        texts = _texts(acceptance)
    except (LookupError, TypeError, AttributeError, ValueError, jinja2.TemplateError) as error:
        raise ReportError(f"acceptance.json is damaged: {type(error).__name__} {error}") from error
    return [_write(run_dir / name, text) for name, text in texts.items()]


def _texts(acceptance: Data) -> dict[str, str]:
    view = {
        "summary": summary(acceptance),
        "duration_s": duration(acceptance),
        "failed_checks": [check["id"] for check in acceptance["checks"] if not check["ok"]],
        **acceptance,
    }
    return {
        "report.json": json.dumps(view, indent=2) + "\n",
        "report.md": _render("report.md.j2", view),
        "report.html": _render("report.html.j2", view),
    }


def summary(acceptance: Data) -> str:
    """The verdict in one line: `ACCEPTED: ...` or `REJECTED: ...` with the checks that failed, the first with why."""
    checks = acceptance["checks"]
    failed = [check for check in checks if not check["ok"]]
    if not failed:
        return f"ACCEPTED: all {count(len(checks), 'check')} passed."
    told = [f"{check['id']} ({check['evidence']})" for check in failed[:TOLD_WITH_EVIDENCE]]
    told += [check["id"] for check in failed[TOLD_WITH_EVIDENCE:]]
    return f"REJECTED: {len(failed)} of {count(len(checks), 'check')} failed: {'; '.join(told)}"


def duration(acceptance: Data) -> int | None:
    """Seconds from the first to the last measurement; None where a time is missing."""
    try:
        started, ended = (datetime.fromisoformat(acceptance[key]) for key in ("started", "ended"))
    except ValueError:
        return None
    return round((ended - started).total_seconds())


def number(value: float) -> str:
    """A number as it stands in the JSON, without a needless `.0`."""
    return str(int(value)) if float(value).is_integer() else str(value)


def plain(value: Any) -> str:
    """Any measured value or threshold in plain words."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    return str(value)


def latency_panels(loads: Data) -> list[dict[str, Any]]:
    """Geometry of the latency pictures: per metric one panel, per model one row, x in 0..1 of the panel's scale."""
    panels = []
    for key, title, subtitle in LATENCIES:
        top = scale_top(max((entry[key]["p99"] for entry in loads.values()), default=0))
        rows = [
            {
                "model": model,
                "mean": entry[key]["mean"],
                "marks": [
                    {"name": name, "value": entry[key][name], "x": entry[key][name] / top} for name in PERCENTILES
                ],
            }
            for model, entry in loads.items()
        ]
        panels.append({"title": title, "subtitle": subtitle, "unit": "ms", "top": top, "rows": rows})
    return panels


def rate_panels(loads: Data) -> list[dict[str, Any]]:
    """Geometry of the throughput pictures: per rate one panel, per model one bar."""
    panels = []
    for key, title, subtitle in RATES:
        top = scale_top(max((entry[key] for entry in loads.values()), default=0))
        rows = [{"model": model, "value": entry[key], "x": entry[key] / top} for model, entry in loads.items()]
        panels.append({"title": title, "subtitle": subtitle, "unit": "", "top": top, "rows": rows})
    return panels


def scale_top(value: float) -> float:
    """A round number at or a little above the value, for the end of a scale; 1 for nothing."""
    if value <= 0:
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(step * magnitude for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * magnitude >= value * 0.999)


def render_terminal(acceptance: Data) -> RenderableType:
    """The acceptance as rich tables: the checks, the load, and the verdict last, where the eye ends."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    checks = Table(box=None, pad_edge=False, show_header=False)
    checks.add_column(no_wrap=True)
    checks.add_column(no_wrap=True)
    checks.add_column(overflow="fold", style="dim")
    for check in acceptance["checks"]:
        mark = Text("ok", "green") if check["ok"] else Text("FAILED", "bold red")
        checks.add_row(mark, Text(check["title"]), Text(check["evidence"]))
    parts: list[RenderableType] = [checks]
    if acceptance["load"]:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in (
            "Load",
            "done",
            "failed",
            "req/s",
            "tok/s",
            "TTFT p50",
            "p95",
            "ITL p50",
            "p95",
            "E2E p50",
            "p95",
        ):
            table.add_column(column, justify="left" if column == "Load" else "right")
        for model, entry in acceptance["load"].items():
            rates = (entry["completed"], entry["failed"], entry["requests_per_s"], entry["output_tokens_per_s"])
            times = [entry[key][name] for key, _, _ in LATENCIES for name in ("p50", "p95")]
            table.add_row(Text(model), *map(number, rates), *(f"{number(value)} ms" for value in times))
        parts += [Text(), table]
    accepted = acceptance["verdict"] == "accepted"
    head, _, rest = summary(acceptance).partition(":")
    verdict = Text.assemble((head, "bold green" if accepted else "bold red"), f":{rest}")
    return Group(*parts, Text(), verdict)


def _render(template: str, view: Data) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.content_dir() / "templates"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plain=plain, cell=_markdown_cell)
    return environment.get_template(template).render(
        view, latency_panels=latency_panels(view["load"]), rate_panels=rate_panels(view["load"]), latencies=LATENCIES
    )


def _markdown_cell(value: Any) -> str:
    """A value that neither ends a table's cell nor starts markup."""
    text = " ".join(plain(value).split())
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _write(file: Path, text: str) -> Path:
    paths.write_private(file, text)
    return file
