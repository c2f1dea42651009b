"""HAProxy's statistics, read with the haproxy-stats library; the only file that imports it.

Three habits of the library (1.5) are met here: it configures the root logger when imported, it splits the CSV at every
comma although texts such as `last_chk` may hold some, and it logs instead of raising when HAProxy does not answer.
"""

from __future__ import annotations

import csv
import io
import logging
import warnings
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit


class StatsError(Exception):
    """HAProxy's statistics cannot be had, or are none."""


@dataclass(frozen=True)
class Counters:
    """What one frontend, backend or server has counted since HAProxy started (or between two readings)."""

    requests: int = 0
    answers_2xx: int = 0
    answers_4xx: int = 0
    answers_5xx: int = 0
    connection_errors: int = 0
    response_errors: int = 0
    retries: int = 0
    redispatches: int = 0
    server_aborts: int = 0
    times_down: int = 0

    def since(self, before: Counters) -> Counters:
        """What was counted between the two readings; StatsError when HAProxy began again from zero in between."""
        change = {key: value - asdict(before)[key] for key, value in asdict(self).items()}
        if min(change.values()) < 0:
            raise StatsError("its counters went down: it was restarted or reloaded in between")
        return Counters(**change)


@dataclass(frozen=True)
class Proxy:
    """One frontend, backend or server. Sessions and queue are those of the moment."""

    name: str
    status: str
    sessions: int
    queued: int
    counters: Counters
    servers: dict[str, Proxy] = field(default_factory=dict)


@dataclass(frozen=True)
class Stats:
    """Everything one reading says, by name."""

    frontends: dict[str, Proxy]
    backends: dict[str, Proxy]


COLUMNS = {
    "answers_2xx": "hrsp_2xx",
    "answers_4xx": "hrsp_4xx",
    "answers_5xx": "hrsp_5xx",
    "connection_errors": "econ",
    "response_errors": "eresp",
    "retries": "wretr",
    "redispatches": "wredis",
    "server_aborts": "srv_abrt",
    "times_down": "chkdown",
}


def parse(text: str) -> Stats:
    """Statistics from HAProxy's CSV, wherever it was fetched. StatsError when the text is no such CSV."""
    tame = _without_inner_commas(text)

    class FromText(_library().HAProxyServer):  # type: ignore[misc]
        """The library's reader, given a text instead of an address."""

        def _fetch(self) -> str:
            return tame

    return _stats(_constructed(FromText, "text:0"))


def fetch(url: str, timeout: float = 5.0) -> Stats:
    """Statistics from the address of HAProxy's statistics page (its path is ignored). StatsError without an answer."""
    parts = urlsplit(url)

    class FromUrl(_library().HAProxyServer):  # type: ignore[misc]
        """The library's reader, with its CSV made fit for it, and with a reason where there is no answer."""

        reason = ""

        def _fetch(self) -> str:
            text = str(super()._fetch())
            return text if self.failed else _without_inner_commas(text)

        def _fail(self, reason: object) -> None:
            self.failed, self.reason = True, str(reason)

    server = _constructed(FromUrl, parts.netloc, timeout=timeout, https=parts.scheme == "https")
    if server.failed:
        raise StatsError(f"{url} does not answer: {server.reason}")
    return _stats(server)


def change(before: Stats, after: Stats) -> Stats:
    """What was counted between two readings, with the later status. StatsError when HAProxy began again in between.

    What was not there before counts from zero.
    """

    def since(old: dict[str, Proxy], new: dict[str, Proxy]) -> dict[str, Proxy]:
        found = {}
        for name, proxy in new.items():
            earlier = old.get(name, Proxy(name, "", 0, 0, Counters()))
            counters = proxy.counters.since(earlier.counters)
            found[name] = replace(proxy, counters=counters, servers=since(earlier.servers, proxy.servers))
        return found

    return Stats(since(before.frontends, after.frontends), since(before.backends, after.backends))


def _library() -> Any:
    """The library, imported without letting it touch the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import haproxystats

    root.handlers[:] = handlers
    root.setLevel(level)
    return haproxystats


def _without_inner_commas(text: str) -> str:
    """The CSV with the commas and line breaks inside its texts replaced. StatsError when it is not HAProxy's."""
    if not text.startswith("# pxname,"):
        raise StatsError(f"not HAProxy's statistics: {text[:60]!r}")
    rows = csv.reader(io.StringIO(text))
    return "\n".join(",".join(" ".join(cell.replace(",", ";").split()) for cell in row) for row in rows if row)


def _constructed(reader: Any, *arguments: Any, **options: Any) -> Any:
    """The library's reader, which reads once while it is constructed (and asks for the time in a deprecated way)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return reader(*arguments, **options)


def _stats(server: Any) -> Stats:
    backends = {}
    for backend in server.backends:
        # The backup server is where requests wait, no engine.
        servers = {str(entry.svname): _proxy(entry) for entry in backend.listeners if getattr(entry, "bck", 0) != 1}
        backends[str(backend.pxname)] = _proxy(backend, servers)
    return Stats({str(entry.pxname): _proxy(entry) for entry in server.frontends}, backends)


def _proxy(service: Any, servers: dict[str, Proxy] | None = None) -> Proxy:
    def number(column: str) -> int:
        value = getattr(service, column, 0)
        return value if isinstance(value, int) else 0

    # Connections are kept alive, so a frontend's requests are not its sessions.
    requests = number("req_tot") if service.svname in ("FRONTEND", "BACKEND") else number("stot")
    counters = Counters(requests=requests, **{key: number(column) for key, column in COLUMNS.items()})
    return Proxy(
        name=str(service.name),
        status=str(getattr(service, "status", "")),
        sessions=number("scur"),
        queued=number("qcur"),
        counters=counters,
        servers=servers or {},
    )
