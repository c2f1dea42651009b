"""Programs that a module asks, with an end to the wait for them."""

from __future__ import annotations

import contextlib
import subprocess

# Seconds that a program has to be gone once it is killed.
GOING = 1


def ask(words: list, timeout: float, env: dict | None = None, both: bool = False) -> tuple[int, str]:
    """Exit status and output (with `both`: and errors); OSError where it is not there, TimeoutExpired where it hangs.

    subprocess.run would wait for the end of what it killed, and a program that hangs in a driver cannot be killed.
    """
    errors = subprocess.STDOUT if both else subprocess.DEVNULL
    # Nothing of ours stays open in it: a stream that it kept would keep the connection to this host open.
    process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    try:
        told = process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GOING)
        if process.stdout:
            process.stdout.close()
        raise
    return process.returncode, told.decode("utf-8", errors="replace")
