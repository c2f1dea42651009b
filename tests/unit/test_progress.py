"""Events in, progress out: what is told, what is not, and how it looks without a terminal and with one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from deploy_cli.display import Display, LiveDisplay, PlainDisplay, failure_text, make_display, recap_lines
from deploy_cli.progress import Progress, clock, failure_message, to_failure


class Clock:
    """A clock that only the test moves; seconds."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Clock:
    return Clock()


def event(kind: str, host: str = "", task: str = "Engine answers", **data: Any) -> dict[str, Any]:
    body = {"task": task, "task_uuid": task, "host": host, **data}
    return {"event": kind, "event_data": {key: value for key, value in body.items() if value != ""}}


def play(name: str = "Gateway") -> dict[str, Any]:
    return {"event": "playbook_on_play_start", "event_data": {"name": name}}


def stats(**counts: dict[str, int]) -> dict[str, Any]:
    return {"event": "playbook_on_stats", "event_data": counts}


def test_a_change_a_long_task_and_a_failure_get_a_line_each(now: Clock) -> None:
    progress = Progress(now=now)
    assert [str(note) for note in progress.feed(play())] == ["== Gateway"]
    assert progress.feed(event("runner_on_ok", "a", duration=0.2, res={"changed": False})) == []
    told = progress.feed(event("runner_on_ok", "a", duration=0.2, res={"changed": True}, role="vllm"))
    assert [str(note) for note in told] == ["changed a: vllm : Engine answers"]
    told = progress.feed(event("runner_on_ok", "a", duration=72.0, res={}))
    assert [str(note) for note in told] == ["ok      a: Engine answers (1m12s)"]
    told = progress.feed(event("runner_on_failed", "a", duration=2.0, res={"msg": "no"}))
    assert [str(note) for note in told] == ["FAILED  a: Engine answers (2.0s): no"]
    assert progress.feed(event("runner_on_skipped", "a")) == []


def test_what_a_long_task_waits_for_is_shown_while_it_runs(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("playbook_on_task_start"))
    progress.feed(event("runner_on_start", "a"))
    now.time = 80
    progress.feed(event("runner_retry", "a", res={"progress": "jaeger: go build 1m20s |\n vllm: pip install"}))
    assert progress.lines() == ["Engine answers (a) 1m20s", "  jaeger: go build 1m20s | vllm: pip install"]
    progress.feed(event("runner_retry", "a", res={"attempts": 3, "retries": 10}))
    assert progress.lines()[1] == "  attempt 3 of 10"
    progress.feed(event("runner_on_ok", "a", res={}))
    progress.feed(event("playbook_on_task_start", task="Next"))
    assert progress.lines() == ["Next (...) 0.0s"]


def test_hosts_are_told_apart_when_several_wait(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("playbook_on_task_start"))
    for host in ("a", "b"):
        progress.feed(event("runner_on_start", host))
        progress.feed(event("runner_retry", host, res={"progress": f"loading on {host}"}))
    assert progress.lines()[1:] == ["  a: loading on a", "  b: loading on b"]


def test_rescued_and_ignored_failures_are_not_failures_in_the_end(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("runner_on_failed", "a", res={"msg": "rescued later"}))
    told = progress.feed(event("runner_on_failed", "b", res={"msg": "x"}, ignore_errors=True))
    assert told[0].kind == "ignored"
    progress.feed(event("runner_on_unreachable", "c", res={"msg": "Host key verification failed."}))
    progress.feed(stats(ok={"a": 1, "b": 1}, rescued={"a": 1}, dark={"c": 1}))
    assert [failure.host for failure in progress.failures] == ["c"]
    assert progress.failures[0].unreachable
    assert "never skips that check" in progress.failures[0].hint


def test_an_unreachable_host_has_a_hint(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("runner_on_unreachable", "c", res={"msg": "timed out"}))
    assert "`ssh` to this host" in progress.failures[0].hint


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "plain"}, "plain"),
        ({"msg": "non-zero return code", "stderr": "one\n\ntwo\n"}, "non-zero return code\none\ntwo"),
        (
            {"msg": "MODULE FAILURE: see", "module_stderr": "Traceback\nKeyError: x"},
            "MODULE FAILURE: see\nTraceback\nKeyError: x",
        ),
        ({"censored": "the output has been hidden"}, "the output has been hidden"),
        ({"include": "x.yml", "reason": "Could not find or access"}, "Could not find or access"),
        ({}, "failed without a message"),
        (
            {
                "msg": "One or more items failed",
                "results": [{"item": "x"}, {"item": {"name": "y"}, "failed": True, "msg": "bad"}],
            },
            "y: bad",
        ),
    ],
)
def test_the_message_of_a_failure(result: dict[str, Any], message: str) -> None:
    assert failure_message(result) == message


def test_many_failed_items_are_cut() -> None:
    items = [{"item": number, "failed": True, "msg": "bad"} for number in range(9)]
    assert failure_message({"results": items}).splitlines()[-1] == "and 6 more items"


def test_the_recap_says_changed_0_for_each_host(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(stats(ok={"a": 30, "node10": 3}, changed={"node10": 2}, failures={}, dark={"c": 1}))
    lines = recap_lines(progress.per_host(), check=False)
    assert lines == [
        "a       ok=30 changed=0  (nothing to do)",
        "c       ok=0 changed=0 unreachable=1",
        "node10  ok=3 changed=2",
    ]
    assert "would change" in recap_lines(progress.per_host(), check=True)[2]


def test_the_recap_of_a_killed_run_has_what_was_seen(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("runner_on_ok", "a", res={"changed": True}))
    assert recap_lines(progress.per_host(), check=False) == ["a  ok=0 changed=1".replace("ok=0 ", "")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (9.9, "9.9s"), (9.96, "10s"), (65, "1m05s"), (7380, "2h03m")]
)
def test_times_are_written_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def plain(now: Callable[[], float]) -> tuple[PlainDisplay, io.StringIO]:
    stream = io.StringIO()
    return PlainDisplay(Progress(now=now), Console(file=stream, width=60)), stream


def test_without_a_terminal_a_wait_is_mentioned_every_ten_seconds_at_most(now: Clock) -> None:
    display, stream = plain(now)
    display.event(event("playbook_on_task_start"))
    display.event(event("runner_on_start", "a"))
    for second in range(26):
        now.time = float(second)
        display.event(event("runner_retry", "a", res={"progress": f"step {second}"}))
        display.tick()
    assert stream.getvalue().splitlines() == [
        "    10s  ...     Engine answers (a) 10s | step 10",
        "    20s  ...     Engine answers (a) 20s | step 20",
    ]


def test_lines_are_neither_wrapped_nor_read_as_markup(now: Clock) -> None:
    display, stream = plain(now)
    task = "[bold]A very long task name [/x] that is longer than the sixty columns that this console has"
    display.event(event("runner_on_ok", "a", task, res={"changed": True}))
    assert stream.getvalue() == f"   0.0s  changed a: {task}\n"


def test_the_live_view_draws_bar_play_task_and_changes(now: Clock) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    display = make_display(Progress(total=4, now=now), console, "deployctl up site.yml", quiet=False)
    assert isinstance(display, LiveDisplay)
    display.start()
    display.event(play("Gateway [1]"))
    display.event(event("runner_on_ok", "a", "Before", res={"changed": True}))
    display.event(event("playbook_on_task_start"))
    display.event(event("runner_on_start", "a"))
    console.print(display.render())
    display.stop()
    display.stop()
    drawn = stream.getvalue()
    for words in ("deployctl up site.yml", "1/4 tasks", "Gateway [1]", "Engine answers (a) 0.0s", "changed: a=1"):
        assert words in drawn
    assert "changed a: Before" in drawn


def test_quiet_draws_nothing_and_still_counts(now: Clock) -> None:
    stream = io.StringIO()
    display = make_display(Progress(now=now), Console(file=stream, force_terminal=True), "x", quiet=True)
    assert type(display) is Display
    display.start()
    display.event(event("runner_on_ok", "a", res={"changed": True}))
    display.tick()
    display.say("hello")
    display.stop()
    assert stream.getvalue() == ""
    assert display.progress.changed == {"a": 1}


def test_failures_are_told_with_hint_and_place(now: Clock) -> None:
    progress = Progress(now=now)
    progress.feed(event("runner_on_failed", "a", res={"msg": "one\ntwo", "hint": "do this"}, task_path="/x/main.yml:3"))
    assert failure_text(progress.failures).plain == (
        "failed a  Engine answers\n    one\n    two\n    hint: do this\n    /x/main.yml:3\n"
    )


def test_a_diff_is_told_without_colours(now: Clock) -> None:
    told = Progress(now=now).feed(
        {"event": "runner_on_file_diff", "event_data": {}, "stdout": "\x1b[31m-a\x1b[0m\r\n+b\r\n"}
    )
    assert [str(note) for note in told] == ["-a\n+b"]


@pytest.mark.parametrize("problems", [["its weights are broken"], "one", {"where": "x"}, 3, None])
def test_only_problems_of_an_input_are_taken_for_such(problems: Any) -> None:
    assert to_failure({"res": {"msg": "it is refused", "problems": problems}}).problems == ()
    kept = {"where": "models.yml:1", "what": "no name"}
    assert to_failure({"res": {"msg": "refused", "problems": [kept]}}).problems == (kept,)


def test_what_a_canary_measured_is_told() -> None:
    seen = event("runner_on_ok", "h", task_action="vllm_canary", res={"msg": "canary: first token after 10 ms"})
    assert [note.kind for note in Progress().feed(seen)] == ["told"]
