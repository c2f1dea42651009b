"""A bundle that is damaged or of somebody else is told apart, never an exception."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deploy_cli.bundle import archive
from deploy_cli.bundle.archive import NotABundleError

GOOD: dict[str, Any] = {
    "format": 1, "site": "lab", "architecture": "amd64", "images": [], "models": [], "packages": {}, "files": {},
}  # fmt: skip


def bundle(folder: Path, text: str) -> Path:
    file = folder / "b.tar"
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return file


def test_a_whole_manifest_is_read(tmp_path: Path) -> None:
    assert archive.load(bundle(tmp_path, json.dumps(GOOD))).manifest["site"] == "lab"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"format": 1, "files": {}}),
        json.dumps({**GOOD, "files": {"a": {}}}),
        json.dumps({**GOOD, "files": {"a": 5}}),
        json.dumps({**GOOD, "images": None}),
        json.dumps([]),
        "[" * 100_000,
    ],
)
def test_any_other_is_no_bundle(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotABundleError):
        archive.load(bundle(tmp_path, text))


def test_another_format_is_said_to_be_one(tmp_path: Path) -> None:
    found, problems = archive.open_checked(bundle(tmp_path, json.dumps({"format": 2, "files": {}})), "lab", print)
    assert found is None and "format 2" in problems[0].what
