"""One fault at a time under load, and a line of the table for each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from load import Load
from stack import Site, haproxy_up
from table import Row, keep

ROWS: list[Row] = []


class Trial:
    """One fault under load: `strike` marks its moment, `until` waits for the site to be whole again."""

    def __init__(self, name: str, load: Load) -> None:
        self.name, self.load = name, load
        self.struck = time.monotonic()
        self.recovered: float | None = None

    def strike(self, act: Callable[[], Any]) -> Any:
        """Do it, and remember when."""
        self.struck = time.monotonic()
        return act()

    def until(self, whole: Callable[[], bool], limit: float = 180) -> None:
        """Wait for the site to be whole, without a hand; `limit` seconds at most."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                if whole():
                    self.recovered = time.monotonic() - self.struck
                    return
            except OSError:
                pass  # whoever is asked is down as well
            time.sleep(0.2)
        raise AssertionError(f"{self.name}: not whole after {limit} s")


@dataclass
class Faults:
    """Makes trials on the site."""

    site: Site
    engine: docker.DockerClient

    def trial(self, name: str, *, chats: int = 3, streams: int = 1, pause: float = 0.0) -> Iterator[Trial]:
        """Load for a while, the fault, and a line of the table."""
        env = self.site.client_env()
        asked = (env["OPENAI_BASE_URL"], env["OPENAI_API_KEY"], "chat-default")
        with Load(*asked, chats=chats, streams=streams, pause=pause) as load:
            time.sleep(3)
            trial = Trial(name, load)
            yield trial
            time.sleep(2)
        row = Row.of(name, load, trial.recovered)
        ROWS.append(row)
        keep(ROWS)
        print(f"\n{row}", file=sys.__stderr__, flush=True)


def both_up() -> bool:
    """Both replicas take requests."""
    return haproxy_up() == "2/2"


@contextmanager
def trial(faults: Faults, name: str, **more: Any) -> Iterator[Trial]:
    """One fault under load; nothing whole may fail, and no stream may end short without saying so."""
    steps = faults.trial(name, **more)
    made: Trial = next(steps)
    yield made
    assert next(steps, None) is None
    assert made.load.chats.sent > 5
    assert made.load.chats.failed == [], made.load.chats.failed[:3]
    assert made.load.streams.failed == [], made.load.streams.failed[:3]


@contextmanager
def change(faults: Faults, name: str, **more: Any) -> Iterator[Trial]:
    """One change under the load of people, who read an answer before they ask again.

    A roll takes minutes: a flood would only measure how the engines and Ansible share the cores of one machine. No
    engine dies in it, so that no stream may be cut.
    """
    with trial(faults, name, **{"chats": 2, "pause": 3.0, **more}) as made:
        yield made
    assert made.load.streams.cut_aloud == 0


def fill(folder: Path) -> Path:
    """Fill a small disk to the last byte."""
    file = folder / "filler"
    with file.open("wb") as handle:
        try:
            while True:
                handle.write(bytes(2**20))
        except OSError:
            pass
    return file
