"""Data -> text that is safe inside an HAProxy configuration."""

from __future__ import annotations

import json
import re
from typing import Any


def haproxy_quote(text: str) -> str:
    """One word of a configuration line: nothing in it is special to HAProxy. ValueError on control characters."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("control characters cannot stand in an HAProxy configuration")
    return "'" + text.replace("'", "'\\''") + "'"


def haproxy_format(text: str) -> str:
    """The same for a place where HAProxy expands %[...]: percent signs are doubled."""
    return haproxy_quote(text.replace("%", "%%"))


def haproxy_model_entry(name: str) -> dict[str, Any]:
    """One model as OpenAI's list has it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "deployctl"}


def openai_error(message: str, kind: str, code: str | None, param: str | None = None) -> str:
    """An error body as OpenAI's API has it, as JSON text."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Name -> function."""
        return {
            "haproxy_quote": haproxy_quote,
            "haproxy_format": haproxy_format,
            "haproxy_model_entry": haproxy_model_entry,
            "openai_error": openai_error,
        }
