"""Why ssh does not get to a host, and the key that the host shows, out of what the user's own ssh says."""

from __future__ import annotations

import re
import subprocess

SAYS = re.compile(r"^debug1: Server host key: (\S+ SHA256:\S+)\s*$", re.MULTILINE)
LIMIT_SECONDS = 20


def shown_key(text: str) -> str:
    """Return kind and fingerprint of the last host key in `ssh -v`'s output: behind a jump host, the one at fault."""
    found = SAYS.findall(text)
    return str(found[-1]) if found else ""


def ask(word: str) -> str:
    """Return what `ssh -v` says when it logs in and does nothing; nothing is trusted or stored by this.

    Ansible tells only a part of it: behind a jump host, the reason is often lost.
    """
    # BatchMode: it must not ask. The rest is as the user's configuration has it, jump hosts and all.
    words = ["ssh", "-v", "-o", "BatchMode=yes", "-o", "UpdateHostKeys=no", "--", word, "true"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=LIMIT_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.decode("utf-8", errors="replace")


def reason(text: str) -> str:
    """Return `ssh -v`'s output without what it says of its own doings."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("debug"))
