"""Long work of an action plugin, asked for again and again by `until`, so that its progress is seen.

Ansible makes one process for a task and calls its plugin there at every attempt: a thread of that process does the
work. Who stops the run stops the process, and the work with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
_JOBS: dict[str, Job] = {}


class Job:
    """One piece of work with its progress line, and its result or error once it has ended."""

    def __init__(self, work: Callable[[Say], Any]) -> None:
        """Begin at once."""
        self.progress = "starting"
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Say], Any]) -> None:
        try:
            self.result = work(self._say)
        except BaseException as error:  # handed to whoever waits
            self.error = error

    def _say(self, text: str) -> None:
        self.progress = text

    def ended(self, seconds: float) -> bool:
        """Wait at most this long; say whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def step(key: str, work: Callable[[Say], Any], seconds: float = 2.0) -> tuple[bool, str, Any]:
    """Begin the work at the first call, look at it at the next; return (ended, progress, result). Raises its error."""
    job = _JOBS.get(key)
    if job is None:
        job = _JOBS[key] = Job(work)
    if not job.ended(seconds):
        return False, job.progress, None
    del _JOBS[key]
    if job.error is not None:
        raise job.error
    return True, job.progress, job.result
