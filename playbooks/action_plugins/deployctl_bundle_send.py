"""Send parts of a bundle into folders of a host, one step at each call; meant for `until: result.finished`.

A part is read out of the bundle where it lies: a step copies at most `step_mib` to the host, and on a host that is the
control node itself nothing is copied twice. What has arrived stays: a run that was stopped goes on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from deploy_cli.bundle import archive
from deploy_cli.bundle.manifest import human, members_below

SPEC = {
    "file": {"type": "str", "required": True},
    "folders": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "to": {"type": "str", "required": True},
            "prefix": {"type": "str", "default": ""},
            "members": {"type": "list", "elements": "str", "default": []},
        },
    },
    "step_mib": {"type": "int", "required": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """`folders`: each `to` gets `members`, or without them everything below `prefix`, which its names then lack."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return finished, placed (all is there), progress, and changed: something was sent, in check mode would be."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, arguments = self.validate_argument_spec(argument_spec=SPEC)
        bundle = archive.load(Path(arguments["file"]))
        folders = [self._folder(bundle, folder) for folder in arguments["folders"]]
        seen = self._receive({"state": "inspected", "folders": folders}, task_vars)
        if seen.get("failed"):
            return {**result, **seen, "finished": True}
        wanted, left = _wanted(folders, seen["folders"])
        lacking = _no_room(folders, seen["folders"])
        if lacking:
            return {**result, "failed": True, "finished": True, "msg": lacking}
        placed = all(state["placed"] for state in seen["folders"].values())
        if placed or self._task.check_mode:
            told = {"finished": True, "placed": placed, "changed": not placed}
            return {**result, **told, "progress": f"{human(left)} to send"}
        written = self._send(bundle, folders, wanted, arguments["step_mib"] << 20, task_vars)
        if written.get("failed"):
            return {**result, **written, "finished": True}
        _more, still = _wanted(folders, written["folders"])
        finished = all(state["placed"] for state in written["folders"].values())
        told = {"finished": finished, "placed": finished, "changed": True}
        return {**result, **told, "progress": f"{human(still)} still to send"}

    @staticmethod
    def _folder(bundle: archive.Bundle, folder: dict[str, Any]) -> dict[str, Any]:
        """A folder as the module takes it; `member` is a file's name in the bundle."""
        prefix = folder["prefix"].rstrip("/") + "/" if folder["prefix"] else ""
        members = folder["members"] or members_below(bundle.manifest, prefix)
        files = [{"name": m.removeprefix(prefix), "member": m, **bundle.manifest["files"][m]} for m in members]
        return {"to": folder["to"], "files": files}

    def _receive(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module("bundle_receive", module_args=arguments, task_vars=task_vars)
        return found

    def _send(
        self,
        bundle: archive.Bundle,
        folders: list[dict[str, Any]],
        wanted: list[tuple[str, str, str, int]],
        limit: int,
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        chosen = archive.ranges(bundle, [(member, have) for _to, _name, member, have in wanted], limit)
        pieces = [
            {**piece, "to": to, "name": name}
            for piece, (to, name, _member, _have) in zip(chosen, wanted, strict=False)  # the limit cuts the pieces off
        ]
        request = {"state": "written", "folders": folders, "pieces": pieces}
        if self._connection.transport == "local":
            return self._receive({**request, "source": str(bundle.file)}, task_vars)
        self._make_tmp_path()
        far = self._connection._shell.join_path(self._connection._shell.tmpdir, "pieces")
        with tempfile.NamedTemporaryFile(prefix="deployctl-") as near, bundle.file.open("rb") as source:
            for piece in pieces:
                source.seek(piece["place"])
                piece["place"] = near.tell()
                near.write(source.read(piece["length"]))
            near.flush()
            self._transfer_file(near.name, far)
        self._fixup_perms2((self._connection._shell.tmpdir, far))
        try:
            return self._receive({**request, "source": far}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)


def _wanted(folders: list[dict[str, Any]], states: dict[str, Any]) -> tuple[list[tuple[str, str, str, int]], int]:
    """(to, name, member, bytes there) of every file that is not whole, and how many bytes are missing in all."""
    found, left = [], 0
    for folder in folders:
        state = states[folder["to"]]
        for file in [] if state["placed"] else folder["files"]:
            have = state["have"][file["name"]]
            if have < file["size"]:
                found.append((folder["to"], file["name"], file["member"], max(have, 0)))
                left += file["size"] - max(have, 0)
    return found, left


def _no_room(folders: list[dict[str, Any]], states: dict[str, Any]) -> str:
    for folder in folders:
        missing = _wanted([folder], states)[1]
        free = states[folder["to"]]["free"]
        if missing > free:
            return f"{folder['to']} needs {human(missing)} more, {human(free)} are free there. Hint: make room"
    return ""
