"""HAProxy's statistics through the haproxy-stats library, as text and from an address."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import acceptance_sample as sample
import pytest

from deploy_cli.gateway import stats


def test_a_text_is_read_with_commas_inside_its_fields() -> None:
    found = stats.parse(sample.csv(7))
    server = found.backends["chat"].servers["chat-1"]
    assert server.status == "UP"
    assert server.counters.requests == 7
    assert server.counters.answers_2xx == 7  # stands after the text with a comma
    assert found.backends["chat"].counters.requests == 14
    assert found.frontends["openai"].counters.requests == 21


def test_servers_named_by_digits_stay_texts() -> None:
    found = stats.parse(sample.csv(7).replace("org-base-0", "8103"))
    assert list(found.backends["org-base"].servers) == ["8103"]


def test_where_requests_wait_is_no_server() -> None:
    lines = sample.csv(7).replace("\n", "bck,\n", 1).replace("0,\n", "0,0,\n").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("chat,chat-1,"))
    lines.insert(at, lines[at].replace("chat-1", "hold", 1)[:-2] + "1,")
    assert set(stats.parse("\n".join(lines)).backends["chat"].servers) == {"chat-0", "chat-1"}


@pytest.mark.parametrize("text", ["", "<html>503 Service Unavailable</html>", "# other,thing\n1,2"])
def test_what_is_no_statistics_is_refused(text: str) -> None:
    with pytest.raises(stats.StatsError, match="not HAProxy's statistics"):
        stats.parse(text)


def test_a_change_is_the_difference_and_knows_restarts() -> None:
    early, late = stats.parse(sample.csv(5)), stats.parse(sample.csv(42))
    assert stats.change(early, late).backends["chat"].servers["chat-0"].counters.requests == 37
    with pytest.raises(stats.StatsError, match="went down"):
        stats.change(late, early)


def test_an_address_is_fetched() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = sample.csv(3).encode() if self.path == "/;csv;norefresh" else b"?"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = stats.fetch(f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.shutdown()
            thread.join()
    assert found.backends["org-base"].counters.requests == 3


def test_an_address_without_an_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "haproxystats"), pytest.raises(stats.StatsError, match="does not answer"):
        stats.fetch("http://127.0.0.1:9", timeout=1)
    assert not [record for record in caplog.records if record.name == "haproxystats"]


def test_the_library_does_not_touch_the_root_logger() -> None:
    code = (
        "import logging; from deploy_cli.gateway import stats\n"
        "try: stats.fetch('http://127.0.0.1:9', timeout=1)\n"
        "except stats.StatsError: print(logging.getLogger().handlers)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
