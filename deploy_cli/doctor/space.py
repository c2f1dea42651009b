"""Room on a host's disks. Folders on one file system share its free space, so their needs are added up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from deploy_cli.doctor.lines import State


class Teller(Protocol):
    """Takes lines."""

    def say(self, check: str, state: State, what: str, hint: str = "", *, blocks: bool = False) -> None:
        """Add a line."""


def judge(told: Teller, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    """Say for each file system what is free, and whether that is enough for what is still to come."""
    folders = look["folders"]
    if folders is None:
        return
    shared: dict[Any, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for need in needs["space"]:
        found = next((f for f in folders if (f.get("engine") if not need["path"] else f["path"] == need["path"])), None)
        if found is not None:
            shared.setdefault(found["device"], []).append((need, found))
    for group in shared.values():
        free = group[0][1]["free_gib"]
        coming = [need for need, _found in group if _is_coming(need, look, needs)]
        wanted = sum(need["gib"] for need in coming)
        places = ", ".join(dict.fromkeys(found["path"] for _need, found in group))
        what = f"{free:g} GiB free for {places}"
        if free >= wanted:
            told.say("disk", "ok", what)
        else:
            parts = " + ".join(f"{need['gib']:g} for {need['what']}" for need in coming)
            hint = "free space there, choose another folder, or lower images_min_free_gib or host_checks_*_free_gib"
            told.say("disk", "problem", f"{what}, {wanted:g} wanted ({parts})", hint, blocks=True)


def _is_coming(need: Mapping[str, Any], look: Mapping[str, Any], needs: Mapping[str, Any]) -> bool:
    """Say whether something is still to be written there; what lies there already needs no room."""
    if need["what"] == "images":
        there = (look["docker"] or {}).get("images") or []
        return any(image not in there for image in needs["images"])
    if need["what"] == "models":
        return any(name not in (look["models"] or []) for name in needs["fetched"])
    return True
