"""Changed tasks of a dry run in, lines about what is not as the inventory says out."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from deploy_cli.drift import Change, differing, document, lines, table, to_change
from deploy_cli.progress import Progress


def data(res: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"host": "node1", "role": "vllm", "task": "vllm : Container runs", "res": {"changed": True, **res}, **more}


CONTAINER = {"before": {"running": False}, "after": {"running": True}}
FILE = [{"before": "a\n", "after": "b\n", "before_header": "/etc/x.cfg (content)", "after_header": "/tmp/y"}, {}]


@pytest.mark.parametrize(
    ("res", "line"),
    [
        ({}, "Container runs"),
        ({"diff": CONTAINER}, "Container runs: not running"),
        ({"diff": {"before": {"exists": False}, "after": {"exists": True}}}, "Container runs: absent"),
        ({"diff": {"before": {"exists": True}, "after": {"exists": False}}},
         "Container runs: there, and not planned"),
        ({"diff": {"before": {"env": ["KEY=secret"], "image": "a"}, "after": {"env": [], "image": "b"}}},
         "Container runs: env, image"),
        ({"diff": {"before": {"gone": 1, "same": 2, "id": "a"}, "after": {"same": 2, "id": "b"}}},
         "Container runs: gone"),
        ({"diff": FILE}, "Container runs: /etc/x.cfg"),
        ({"dest": "/etc/x.cfg", "msg": "whatever"}, "Container runs: /etc/x.cfg"),
        ({"path": "/srv", "diff": {"before": {"path": "/srv", "mode": "0700"},
                                   "after": {"path": "/srv", "mode": "0755"}}},
         "Container runs: /srv (mode 0700, not 0755)"),
        ({"msg": "OK (16 bytes)"}, "Container runs"),
        ({"msg": "All items completed", "results": [
            {"changed": True, "item": "a", "diff": CONTAINER},
            {"changed": False, "item": "b"},
            {"changed": True, "item": {"name": "c"}},
            {"changed": True, "_ansible_item_label": "d", "path": "/srv/d"},
         ]}, "Container runs: a (not running), c, /srv/d"),
        ("none", "Container runs"),
    ],
)  # fmt: skip
def test_a_changed_task_says_what_differs_and_no_value(res: Any, line: str) -> None:
    change = to_change({**data({}), "res": None} if res == "none" else data(res))
    assert (change.host, change.role, str(change)) == ("node1", "vllm", line)


def test_an_announcement_is_its_message() -> None:
    change = to_change(data({"msg": "would get: haproxy"}, task_action="ansible.builtin.debug"))
    assert str(change) == "would get: haproxy"


@pytest.mark.parametrize("diff", [None, "text", [], {}, {"before": "a", "after": {"b": 1}}, [None, {"prepared": "x"}]])
def test_a_diff_of_another_form_tells_nothing(diff: Any) -> None:
    assert differing(diff) == []


def test_the_run_collects_changes_with_their_file_diffs() -> None:
    progress = Progress()
    for kind, event in (
        ("runner_on_file_diff", {"stdout": "-a\n+b"}),
        ("runner_on_ok", {"event_data": data({"diff": FILE}, role="haproxy")}),
        ("runner_on_ok", {"event_data": data({"changed": False})}),
        ("runner_on_ok", {"event_data": data({"diff": CONTAINER})}),
    ):
        progress.feed({"event": kind, **event})
    assert [(change.role, change.diff) for change in progress.changes] == [("haproxy", "-a\n+b"), ("vllm", "")]


CHANGES = [Change("node10", "haproxy", "Configuration is written", ("/x",), "-a\n+b"), Change("a", "", "Gone")]


def test_lines_and_document_hold_every_change() -> None:
    assert lines(CHANGES) == [
        "HOST    ROLE     NOT AS THE INVENTORY SAYS",
        "node10  haproxy  Configuration is written: /x",
        "a       -        Gone",
    ]
    assert lines(CHANGES, files=True)[2:4] == ["    -a", "    +b"]
    assert document(CHANGES)[0] == {
        "host": "node10", "role": "haproxy", "task": "Configuration is written", "what": ["/x"], "diff": "-a\n+b",
    }  # fmt: skip


def test_the_terminal_table_holds_what_the_lines_hold() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(table(CHANGES))
    for word in ("HOST", "node10", "Configuration is written: /x", "Gone"):
        assert word in stream.getvalue()
