"""The reports: written from the folder alone, every number in them, and a real browser finds no fault."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acceptance_sample as sample
import pytest
from rich.console import Console

from deploy_cli.bench import acceptance, report
from deploy_cli.errors import ExitCode

HOSTILE = '</td><script>console.error("run")</script> & "quoted" | `pipe`'


@pytest.fixture
def judged() -> dict[str, Any]:
    return acceptance.judge(sample.plan(), sample.measurements(), sample.thresholds(), sample.IMAGES)


@pytest.fixture
def rejected(judged: dict[str, Any]) -> dict[str, Any]:
    judged["verdict"] = "rejected"
    judged["checks"][2].update(ok=False, evidence=HOSTILE)
    return judged


def written(folder: Path, judged: dict[str, Any]) -> dict[str, str]:
    report.save(folder, judged)
    return {file.suffix: file.read_text(encoding="utf-8") for file in report.write_reports(folder)}


def numbers(value: Any) -> Iterator[str]:
    """Every number of the JSON, as the JSON writes it (without a needless .0)."""
    if isinstance(value, dict):
        for entry in value.values():
            yield from numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield re.sub(r"\.0$", "", json.dumps(value))


def words(page: str) -> set[str]:
    """The texts a reader sees, split at blanks and at what surrounds numbers."""
    body = re.sub(r"<(style|script|title)\b.*?</\1>", " ", page, flags=re.S)
    seen = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return {word.rstrip(".") for word in re.split(r"[\s,;:%()|]+", seen)}


def browse(page: Path, profile: Path) -> tuple[str, str]:
    """The page's document as the browser holds it after loading, and what the browser said on its console."""
    browser = shutil.which("chromium")
    assert browser, "Debian's chromium is not installed: this test opens the report in a real browser"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    told = subprocess.run(
        [browser, *flags, "--enable-logging=stderr", f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in told.stderr.splitlines() if "CONSOLE" in line or "Uncaught" in line]
    return told.stdout, "\n".join(console)


def test_a_real_browser_shows_every_number_without_an_error(tmp_path: Path, rejected: dict[str, Any]) -> None:
    written(tmp_path, rejected)
    page, console = browse(tmp_path / "report.html", tmp_path / "profile")
    assert console == ""
    assert "<script" not in page
    assert page.count("<svg") == 5
    found = words(page)
    everything = {key: value for key, value in rejected.items() if key != "version"}
    missing = [number for number in numbers(everything) if number not in found]
    assert missing == []
    assert HOSTILE in html.unescape(page)


def test_the_browser_test_would_notice(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<p>12.5</p><script>console.error('boom')</script>", encoding="utf-8")
    shown, console = browse(page, tmp_path / "profile")
    assert "boom" in console
    assert "12.5" in words(shown)
    assert "2.5" not in words(shown)


def test_the_page_needs_nothing_from_outside(tmp_path: Path, judged: dict[str, Any]) -> None:
    page = written(tmp_path, judged)[".html"]
    assert not re.findall(r"(?:src|href|url)\s*[=(](?!\s*[\"']?data:)", page)
    assert "prefers-color-scheme: dark" in page


def test_markdown_and_json_hold_every_number(tmp_path: Path, rejected: dict[str, Any]) -> None:
    texts = written(tmp_path, rejected)
    everything = {key: value for key, value in rejected.items() if key != "version"}
    found = words(texts[".md"].replace("**", " ").replace("\\", ""))
    assert [number for number in numbers(everything) if number not in found] == []
    assert "<script>" not in texts[".md"].replace("\\<", "")
    view = json.loads(texts[".json"])
    assert view["verdict"] == "rejected"
    assert view["failed_checks"] == ["model_answers:default"]
    assert view["duration_s"] == 44
    assert view["load"] == rejected["load"]


def test_tables_of_the_markdown_are_whole(tmp_path: Path, rejected: dict[str, Any]) -> None:
    columns = 0
    for line in written(tmp_path, rejected)[".md"].splitlines():
        if line.startswith("|---"):
            columns = line.count("|")
        elif line.startswith("|") and columns:
            assert len(re.findall(r"(?<!\\)\|", line)) == columns, line
        elif not line.startswith("|"):
            columns = 0


def test_reports_are_private(tmp_path: Path, judged: dict[str, Any]) -> None:
    written(tmp_path, judged)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_a_run_that_measured_nothing_still_has_its_report(tmp_path: Path) -> None:
    nothing = acceptance.judge(sample.plan(), acceptance.Measurements(), sample.thresholds(), {})
    texts = written(tmp_path, nothing)
    assert "No load run left a result" in texts[".html"]
    assert json.loads(texts[".json"])["duration_s"] is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "did not come that far"),
        ("{", "cannot be read"),
        ("[]", "not of a version"),
        ('{"version": 9}', "version"),
    ],
)
def test_a_folder_without_an_acceptance_is_told(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "acceptance.json").write_text(content, encoding="utf-8")
    with pytest.raises(report.ReportError, match=told) as caught:
        report.write_reports(tmp_path)
    assert caught.value.exit_code == ExitCode.OWN_FAULT


def test_the_summary_names_what_failed(judged: dict[str, Any]) -> None:
    assert report.summary(judged) == f"ACCEPTED: all {len(judged['checks'])} checks passed."
    judged["checks"][0].update(ok=False, evidence="gone")
    assert report.summary(judged).startswith(
        f"REJECTED: 1 of {len(judged['checks'])} checks failed: models_listed (gone)"
    )
    for check in judged["checks"]:
        check.update(ok=False, evidence="gone")
    assert report.summary(judged).count("(gone)") == 3
    assert report.summary(judged).endswith("; gateway_no_errors")


def test_the_terminal_shows_checks_load_and_verdict(rejected: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(report.render_terminal(rejected))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.rstrip().splitlines()[-1].strip()
    assert "FAILED" in shown
    assert "171.7 ms" in shown
    assert "REJECTED: 1 of" in shown


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.034, 0.04), (1, 1), (637.03, 800), (2529, 3000), (9.83, 10)])
def test_scales_end_at_round_numbers(value: float, top: float) -> None:
    assert report.scale_top(value) == pytest.approx(top)
