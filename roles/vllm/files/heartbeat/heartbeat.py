"""Run the engine as a child, and kill it when it hangs: a hang then is a failure that the gateway repeats elsewhere.

Process 1 of the engine's container (`heartbeat.py [options] -- vllm serve ...`), with no right, socket or port of its
own. It hands signals on, reaps, and ends with the engine's exit code; with HANGS when it killed the engine.

A stop (SIGTERM) that nobody has announced finds clients that still ask: a host that reboots, a `docker stop` by hand.
vLLM would finish what runs, and answer what comes meanwhile with 200 and not one token, or with 500. So it is killed at
once: that is a failure too that the gateway repeats elsewhere. Who has led the requests away announces the stop with
SIGWINCH; then the engine goes on until nothing runs in it any more, which Docker's grace bounds, and is killed then.
(SIGWINCH means nothing to an engine that runs without this parent.)

Every second it asks for the engine's metrics and looks at the engine's processes in /proc. The engine hangs when it has
unfinished requests and its metrics, which move with every step, stand still

- for `--seconds`, while its processes use no CPU (stopped, or in a deadlock);
- for `--spin-seconds`, while they do: within one long step of a prefill nothing moves either. On a CPU that bound is
  long; a process that waits for a GPU burns CPU whether the GPU works or not, so there it is hardly longer;
- for `--busy-seconds`, while its helpers use the CPU, such as compilers of a kernel that is met for the first time.

It also hangs when one of its processes has been stopped for `--seconds`, when its server, once up, gives no metrics
for `--seconds` (`--busy-seconds` while it uses the CPU), and when it is not up after `--start-seconds`.

After `--kills` kills within `--window-seconds` the engine stays off, so that the gateway's checks fail and requests go
elsewhere, until the first of those kills is that old; then the container ends and Docker starts it again.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import signal
import sys
import time
import urllib.parse
from pathlib import Path

from judge import Judge, Limits
from look import Engine, Look, engines_in, family, processes

HANGS = 70
ANSWER_SECONDS = 1.0
REAP_SECONDS = 30.0
# Between two looks at an engine that ends as soon as nothing runs in it; the last answer has left it by the second one.
LEAVING_SECONDS = 0.1
HANDED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
BOOT = Path("/proc/sys/kernel/random/boot_id")


def say(text: str) -> None:
    """One line into the container's log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # Not by print: a signal's handler may speak while something is being printed.
    os.write(2, f"heartbeat {stamp} {text}\n".encode())


class Kills:
    """When the engine was killed, in seconds since boot (no clock jumps there), kept across starts of the container."""

    def __init__(self, file: Path, most: int, window: float) -> None:
        """At most `most` kills in `window` seconds; 0 is no bound."""
        self.file, self.most, self.window = file, most, window

    def add(self) -> float:
        """Remember a kill; returns for how many seconds the engine has to stay off."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        boot = BOOT.read_text().strip()
        kills: list[float] = []
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(self.file.read_text())
            kills = [float(at) for at in told["kills"]] if told["boot"] == boot else []
        kills = [*(at for at in kills if now - self.window < at <= now), now]
        try:
            scratch = self.file.with_suffix(".new")
            scratch.write_text(json.dumps({"boot": boot, "kills": kills}))
            scratch.replace(self.file)
        except OSError as error:
            say(f"cannot remember kills, so they are not bounded: {error}")
        return kills[-self.most] + self.window - now if 0 < self.most <= len(kills) else 0.0


class Parent:
    """The engine's parent process."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Nothing runs yet."""
        self.options = options
        self.url = urllib.parse.urlsplit(options.url)
        self.judge = Judge(Limits(options.seconds, options.spin_seconds, options.busy_seconds, options.start_seconds))
        self.child = 0
        self.code: int | None = None
        self.asked_to_stop = False
        self.announced = float("-inf")
        self.leaving = False
        self.idle = 0  # looks in a row that saw no request
        self.woken, wake = os.pipe()
        for end in (self.woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> int:
        """Start the engine and stay with it; returns the exit code."""
        self.start()
        looked = time.monotonic()
        while self.reaped() is None:
            left = looked + (LEAVING_SECONDS if self.leaving else self.options.interval) - time.monotonic()
            if left > 0:
                self.pause(left)
                continue
            now = time.monotonic()
            # A pause of this very process (a frozen container, a host that was suspended) is nobody's silence.
            seconds = min(now - looked, 2 * self.options.interval + ANSWER_SECONDS)
            looked = now
            why = self.look(seconds)
            if self.reaped() is not None:
                break
            if why:
                return self.end(why)
            if self.leaving and self.idle >= 2:
                self.end_now("nothing runs in the engine any more, as announced")
        return self.code or 0

    def look(self, seconds: float) -> str:
        """Look at the engine; why it hangs, or an empty string."""
        try:
            engines = self.metrics()
            look = Look.at(engines, family(processes(), self.child), self.child)
            self.judge.draining = self.asked_to_stop and not self.leaving
            why = self.judge.judge(look, seconds)
            # One that is not up yet has no requests.
            unused = not any(engine.requests for engine in engines.values()) if engines else not self.judge.ready
            self.idle = self.idle + 1 if unused else 0
            if self.leaving and engines == {}:  # it keeps no statistics, so only itself knows
                self.leaving = False
                self.hand_on(signal.SIGTERM)
            return why
        except Exception as error:
            # Whatever goes wrong here, the engine is not to end for it.
            say(f"cannot look at the engine: {error!r}")
            return ""

    def start(self) -> None:
        """Start the engine in a session of its own, so that one signal reaches all of it."""
        # A signal that comes too early waits for the engine instead of being lost, as process 1's are.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
        command = self.options.command
        ours = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, its children would too
        self.child = os.posix_spawnp(command[0], command, os.environ, setsid=True, setsigmask=(), setsigdef=ours)
        for number in HANDED_ON:
            signal.signal(number, self.hand_on)
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGWINCH, self.announce)
        # sigtimedwait would do without any handler, but takes the end of a pause for a signal that never was.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)

    def hand_on(self, number: int, _: object = None) -> None:
        """A signal for the engine; its main process alone gets it, as without a heartbeat."""
        say(f"{signal.Signals(number).name} is handed on to the engine")
        self.asked_to_stop |= number in (signal.SIGTERM, signal.SIGINT)
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, number)

    def announce(self, *_: object) -> None:
        """No new requests come: a stop that follows soon lets the running ones end."""
        say("a stop is announced: requests go elsewhere by now")
        self.announced = time.monotonic()

    def stop(self, *_: object) -> None:
        """End the engine at once, or where that was announced, as soon as nothing runs in it; see above."""
        self.asked_to_stop = True
        if time.monotonic() - self.announced <= self.options.announced_seconds:
            self.leaving, self.idle = True, 0  # looks from before say nothing of what has come since
        else:
            self.end_now("no stop was announced: the engine is killed, so that its requests are repeated elsewhere")

    def end_now(self, why: str) -> None:
        """Kill the engine, and end as one that was stopped; what has left its group ends with the container."""
        if self.code is None:
            # Before a word is said: until then it goes on to take requests.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGKILL)
            self.code = 128 + signal.SIGTERM
            say(f"SIGTERM: {why}")

    def wait(self, until: float) -> None:
        """Reap until the monotonic clock says `until`, or the engine has ended."""
        while self.reaped() is None and (left := until - time.monotonic()) > 0:
            self.pause(left)

    def pause(self, seconds: float) -> None:
        """Do nothing until a signal comes."""
        if select.select([self.woken], [], [], seconds)[0]:
            os.read(self.woken, 4096)

    def reaped(self) -> int | None:
        """Take the remains of every process that has ended; the engine's exit code once it has."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child and self.code is None:
                    code = os.waitstatus_to_exitcode(ended[1])
                    self.code = code if code >= 0 else 128 - code
        return self.code

    def metrics(self) -> dict[str, Engine] | None:
        """Ask the engine's server; None when it gives no metrics in time."""
        connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", self.url.path)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            return engines_in(text) if answer.status == 200 else {}
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def end(self, why: str) -> int:
        """Kill the engine with all its processes, and keep it off when that has happened too often."""
        say(f"the engine hangs: {why}; killing it")
        members = family(processes(), self.child)
        for process in members:
            say(f"  process {process.pid} {process.state} CPU {process.cpu:.1f} s {process.command[:80]}")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        for process in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.wait(time.monotonic() + REAP_SECONDS)
        off = Kills(Path(self.options.state), self.options.kills, self.options.window_seconds).add()
        if off > 0:
            say(
                f"killed {self.options.kills} times in {self.options.window_seconds:.0f} s: "
                f"the engine stays off for {off:.0f} s, then it is started again"
            )
            until = time.monotonic() + off
            while not self.asked_to_stop and (left := until - time.monotonic()) > 0:
                self.pause(left)
        return HANGS


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options, and the engine's command after `--`."""
    parser = argparse.ArgumentParser(description="Run an engine and kill it when it hangs.")
    parser.add_argument("--url", default="http://127.0.0.1:8000/metrics", help="the engine's metrics")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two looks")
    parser.add_argument("--seconds", type=float, default=7, help="a hang, when no CPU is used meanwhile")
    parser.add_argument("--spin-seconds", type=float, default=120, help="a hang, although the engine uses CPU")
    parser.add_argument("--busy-seconds", type=float, default=120, help="a hang, although server or helpers use CPU")
    parser.add_argument("--start-seconds", type=float, default=1800, help="a hang, when it was never up")
    parser.add_argument("--announced-seconds", type=float, default=30, help="an announced stop comes within them")
    parser.add_argument("--kills", type=int, default=3, help="so many kills in the window keep it off; 0 never does")
    parser.add_argument("--window-seconds", type=float, default=600, help="length of that window")
    parser.add_argument("--state", default="/cache/heartbeat.json", help="file that remembers the kills")
    parser.add_argument("command", nargs="+", help="the engine, after --")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(Parent(parse(sys.argv[1:])).run())
