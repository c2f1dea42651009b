"""Drawing of a run's progress: live on a terminal, plain lines everywhere else. rich is imported when first drawn."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from deploy_cli.progress import (
    QUIET_SECONDS,
    Failure,
    Progress,
    clock,
)

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text


def mute(*streams: IO[str]) -> None:
    """Let go nowhere what is written from now on: nobody reads any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Display:
    """Keeps the state and draws nothing (-q); the others draw."""

    def __init__(self, progress: Progress) -> None:
        """Draw this progress."""
        self.progress = progress

    def start(self) -> None:
        """Begin to draw."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Take one event of Ansible."""
        self.progress.feed(event)

    def tick(self) -> None:
        """Be called about twice a second."""

    def say(self, text: str) -> None:
        """Show a message of our own."""

    def stop(self) -> None:
        """End drawing; harmless when called twice."""


class PlainDisplay(Display):
    """One line per thing worth it, for logs and pipes."""

    def __init__(self, progress: Progress, console: Console) -> None:
        """Write to this console."""
        super().__init__(progress)
        self.console = console
        self._spoke = progress.now()
        self._last = ""

    def event(self, event: Mapping[str, Any]) -> None:
        """Write what is worth a line."""
        for note in self.progress.feed(event):
            self.say(str(note))

    def tick(self) -> None:
        """Mention what runs, when nothing was said for a while."""
        if self.progress.now() - self._spoke < QUIET_SECONDS:
            return
        lines = self.progress.lines()
        self._spoke = self.progress.now()
        if lines:
            self.say("...     " + " | ".join(line.strip() for line in lines))

    def say(self, text: str) -> None:
        """Write a line with the time since the start."""
        stamp = f"{clock(self.progress.elapsed):>7}  "
        self.console.print(stamp + text.replace("\n", "\n" + " " * 9), markup=False, highlight=False, soft_wrap=True)
        self._spoke = self.progress.now()


class LiveDisplay(Display):
    """A live block at the bottom of the terminal; what is done scrolls above it."""

    def __init__(self, progress: Progress, console: Console, headline: str) -> None:
        """Draw on this console under a headline such as `deployctl up inventories/local.yml`."""
        super().__init__(progress)
        self.console = console
        self.headline = headline
        self._guard = threading.Lock()
        self._live: Live | None = None
        self._spinner: Any = None

    def start(self) -> None:
        """Open the live block."""
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def event(self, event: Mapping[str, Any]) -> None:
        """Print what is worth a line above the block."""
        with self._guard:
            notes = self.progress.feed(event)
        for note in notes:
            self._print(str(note), {"play": "bold", "failed": "red", "changed": "yellow"}.get(note.kind, "dim"))

    def say(self, text: str) -> None:
        """Print a message above the block."""
        self._print(text, "bold yellow")

    def stop(self) -> None:
        """Remove the block."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        stamp = f"{clock(self.progress.elapsed):>7}  "
        # A Text of its own: a style given to print() would colour the live block too.
        self.console.print(Text(stamp + text.replace("\n", "\n" + " " * 9), style))

    def render(self) -> Group:
        """Draw the block: headline and bar, the play, what runs and what it waits for, what has changed so far."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._guard:
            progress = self.progress
            head = Table.grid(padding=(0, 1))
            count = f"{progress.tasks}/{progress.total} tasks" if progress.total else f"{progress.tasks} tasks"
            cells: list[Any] = [self._spinner, Text(self.headline, "bold"), Text(clock(progress.elapsed), "cyan")]
            if progress.total:
                cells.append(ProgressBar(total=max(progress.total, progress.tasks), completed=progress.tasks, width=24))
            head.add_row(*cells, Text(count, "dim"))
            rows: list[Text] = [Text(f"  {progress.play}", "bold")] if progress.play else []
            rows += [Text(f"  {line}", overflow="ellipsis", no_wrap=True) for line in progress.lines()[:10]]
            if progress.changed:
                told = " ".join(f"{host}={count}" for host, count in sorted(progress.changed.items())[:8])
                rows.append(Text(f"  changed: {told}", "yellow", overflow="ellipsis", no_wrap=True))
            return Group(head, *rows)


def make_display(progress: Progress, console: Console, headline: str, *, quiet: bool) -> Display:
    """Choose the display that fits the console."""
    if quiet:
        return Display(progress)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(progress, console, headline)
    return PlainDisplay(progress, console)


def recap_lines(per_host: Mapping[str, Mapping[str, int]], *, check: bool) -> list[str]:
    """Say per host what was done; `changed=0` stands there as exactly that."""
    width = max((len(host) for host in per_host), default=0)
    lines = []
    for host, counts in per_host.items():
        told = " ".join(f"{name}={count}" for name, count in counts.items() if count or name in ("ok", "changed"))
        bad = counts.get("failed") or counts.get("unreachable")
        if counts.get("changed"):
            end = "  (check mode: would change, nothing was touched)" if check else ""
        else:
            end = "" if bad else "  (nothing to do)"
        lines.append(f"{host:<{width}}  {told}{end}")
    return lines


def failure_text(failures: list[Failure]) -> Text:
    """Write the failures for the end of a run: host, task, message, hint and the task's place."""
    from rich.text import Text

    text = Text()
    for failure in failures:
        text.append("unreachable " if failure.unreachable else "failed ", "bold red")
        text.append(f"{failure.host}", "bold")
        text.append(f"  {failure.task}\n")
        for line in failure.message.splitlines():
            text.append(f"    {line}\n")
        if failure.hint:
            text.append("    hint: ", "cyan")
            text.append(f"{failure.hint}\n")
        if failure.where:
            text.append(f"    {failure.where}\n", "dim")
    return text
