"""Words for people: the nearest known name, the type of a value, a value that may be shown."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from deploy_cli.plan.shapes import KeyPath

_SECRET = re.compile(r"key|token|secret|password|passwd|credential|auth|^env$", re.IGNORECASE)
_PLAIN = re.compile(r"[\w@:/+.,-]{1,60}")

ENCRYPTED = "it is encrypted, and the vault's password is missing or wrong"
VAULT_HINT = "give the password: -J asks for it, --vault-password-file FILE reads it from a file"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, or None when nothing is near."""
    if len(name) > 100:
        return None  # nothing known is that long, and comparing would take seconds
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """A hint that names the nearest known name, or `otherwise`."""
    found = nearest(name, known)
    return f"did you mean `{found}`?" if found else otherwise


def listing(names: Iterable[str]) -> str:
    """Names as one phrase: `a`, `b`, `c`."""
    return ", ".join(f"`{n}`" for n in names)


def type_name(value: Any) -> str:
    """The type of a value as a YAML writer would call it."""
    if value is None:
        return "empty"
    for kind, word in ((bool, "true/false"), (int, "a whole number"), (float, "a number"), (str, "text")):
        if isinstance(value, kind):
            return word
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def shown(path: KeyPath, value: Any) -> str:
    """A value for a message: short plain scalars only, and nothing below a key that may hold a secret."""
    if any(isinstance(p, str) and _SECRET.search(p) for p in path):
        return f"{type_name(value)} (not shown)"
    if isinstance(value, bool) or value is None:
        return type_name(value) if value is None else str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value}"[:60]
    if isinstance(value, str):
        return f"`{value}`" if _PLAIN.fullmatch(value) else "empty text" if not value else f"`{value[:30]!s}...`"
    return type_name(value)
