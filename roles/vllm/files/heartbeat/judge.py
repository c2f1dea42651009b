"""Whether looks at the engine show a hang; pure, the caller says how much time lies between them."""

from __future__ import annotations

from dataclasses import dataclass

from look import Engine, Look, Process

# A process that uses less of a CPU than this does nothing that counts: timers and pollers of its background threads.
NOISE = 0.03


@dataclass(frozen=True)
class Limits:
    """Bounds in seconds, as the options name them."""

    seconds: float
    spin_seconds: float
    busy_seconds: float
    start_seconds: float


class Cpu:
    """Tells whether processes work: use a CPU in amounts that are more than noise over `seconds`."""

    def __init__(self, seconds: float) -> None:
        """Nothing is known of any process yet."""
        self.enough = NOISE * seconds
        self.mark = 0.0
        self.total = 0.0

    def used(self, total: float) -> bool:
        """Take the CPU seconds of all these processes; whether enough came together since the last yes."""
        self.total = total
        worked = total - self.mark >= self.enough
        if worked or total < self.mark:  # less than before: a process has ended
            self.mark = total
        return worked

    def restart(self) -> None:
        """Count from here."""
        self.mark = self.total


class Stillness:
    """For how many seconds nothing has moved: at all, but for helpers, and with no CPU used either."""

    def __init__(self, limits: Limits) -> None:
        """Everything moves."""
        self.limits = limits
        self.moved()

    def moved(self) -> None:
        """There was progress."""
        self.silent = self.spinning = self.idle = 0.0

    def still(self, seconds: float, *, worked: bool, helped: bool) -> bool:
        """No progress for these seconds more; whether that is a hang."""
        self.silent += seconds
        self.spinning = 0.0 if helped else self.spinning + seconds
        self.idle = 0.0 if helped or worked else self.idle + seconds
        return (
            self.silent >= self.limits.busy_seconds
            or self.spinning >= self.limits.spin_seconds
            or self.idle >= self.limits.seconds
        )


class Judge:
    """Decides over looks; as it asks no clock, time in which nobody looked (a frozen container) counts for nothing."""

    def __init__(self, limits: Limits) -> None:
        """The engine is starting."""
        self.limits = limits
        self.ready = False
        self.draining = False
        self.starting = 0.0
        self.stopped = 0.0
        self.server = Stillness(limits)
        self.cores: dict[str, Stillness] = {}
        self.numbers: dict[str, dict[str, float]] = {}
        self.server_cpu, self.core_cpu, self.helper_cpu = (Cpu(limits.seconds) for _ in range(3))

    def judge(self, look: Look, seconds: float) -> str:
        """Take a look and the seconds since the one before; why the engine hangs, or an empty string."""
        self.ready = self.ready or look.engines is not None
        if not self.ready:
            self.starting += seconds
            return f"not up after {self.starting:.0f} s" if self.starting >= self.limits.start_seconds else ""
        # Each of them has to see every look.
        reasons = (
            self.stopped_process(look, seconds),
            self.silent_server(look, seconds),
            self.silent_cores(look, seconds),
        )
        return next((why for why in reasons if why), "")

    def stopped_process(self, look: Look, seconds: float) -> str:
        """A stopped process (SIGSTOP) does not go on by itself, whether there are requests yet or not."""
        stopped = [process for process in look.server + look.cores if process.state == "T"]
        self.stopped = self.stopped + seconds if stopped else 0.0
        if self.stopped < self.limits.seconds:
            return ""
        return f"{name(stopped)} has been stopped for {self.stopped:.1f} s"

    def silent_server(self, look: Look, seconds: float) -> str:
        """No metrics for too long. While it drains, the server ends by itself and Docker's grace bounds that."""
        worked = self.server_cpu.used(sum(process.cpu for process in look.server))
        if look.engines is not None or self.draining:
            self.server.moved()
            self.server_cpu.restart()
        # A server waits for no device by spinning: when it uses the CPU, it is at work on something.
        elif self.server.still(seconds, worked=worked, helped=worked):
            return f"{name(look.server)} gives no metrics for {self.server.silent:.1f} s"
        return ""

    def silent_cores(self, look: Look, seconds: float) -> str:
        """Unfinished requests, and no number moves."""
        worked = self.core_cpu.used(sum(process.cpu for process in look.cores))
        # Whoever waits for a disk is slow, not in a deadlock.
        worked = worked or any(process.state == "D" for process in look.cores)
        # What a helper that has ended used is counted at its parent. Without any core, the server ends by itself in a
        # few seconds (more on a loaded host); only when it does not, it is ended here.
        helpers = sum(process.cpu for process in look.helpers) + sum(process.ended_cpu for process in look.cores)
        helped = self.helper_cpu.used(helpers) or not look.cores
        for number, engine in (look.engines or {}).items():
            still = self.cores.setdefault(number, Stillness(self.limits))
            if self.at_rest(number, engine):
                still.moved()
                self.core_cpu.restart()
                self.helper_cpu.restart()
            elif still.still(seconds, worked=worked, helped=helped):
                how = "no CPU" if still.idle >= self.limits.seconds else "CPU"
                waiting = f"{engine.unfinished:.0f} unfinished requests"
                return f"{name(look.cores)} has {waiting} and made no step for {still.silent:.1f} s, {how} used"
        return ""

    def at_rest(self, number: str, engine: Engine) -> bool:
        """Nothing is to be expected of this engine just now: its numbers have moved, or it has nothing to do."""
        before, self.numbers[number] = self.numbers.get(number), engine.numbers
        return before != engine.numbers or not engine.unfinished or engine.asleep


def name(of: list[Process]) -> str:
    """The first of some processes, as the log names it."""
    return f"process {of[0].pid} ({of[0].command[:60]})" if of else "an engine whose process is gone"
