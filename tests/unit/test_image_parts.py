"""The mirror that builds use is the host's own Debian mirror, never a vendor's repository beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loading import loaded

OS = 'ID=debian\nVERSION_CODENAME=trixie\nVERSION_ID="13"\n'
VENDOR = "Types: deb\nURIs: https://vendor.example/apt\nSuites: nodistro\nComponents: main\n"
SECURITY = "Types: deb\nURIs: http://mirror.example/security\nSuites: trixie-security\nComponents: main\n"
OWN = "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\nComponents: main contrib\n"


@pytest.fixture
def parts() -> Any:
    return loaded("roles/images/module_utils/image_parts.py")


def etc(folder: Path, os_release: str, files: dict[str, str]) -> Path:
    (folder / "apt/sources.list.d").mkdir(parents=True)
    (folder / "os-release").write_text(os_release)
    for name, content in files.items():
        (folder / "apt" / name).write_text(content)
    return folder


def test_a_vendors_repository_is_passed_over(parts: Any, tmp_path: Path) -> None:
    files = {"sources.list.d/a-vendor.sources": VENDOR, "sources.list.d/debian.sources": f"{SECURITY}\n{OWN}"}
    assert parts.host_mirror(etc(tmp_path, OS, files)) == "http://mirror.example/debian"


@pytest.mark.parametrize("options", ["", "[signed-by=/k.gpg arch=amd64] "])
def test_one_line_format(parts: Any, tmp_path: Path, options: str) -> None:
    updates = f"deb {options}http://mirror.example/debian trixie-updates main\n"
    lines = f"{updates}deb {options}http://m.example/d trixie contrib main\n"
    assert parts.host_mirror(etc(tmp_path, OS, {"sources.list": lines})) == "http://m.example/d"


def test_a_repository_that_is_off_does_not_count(parts: Any, tmp_path: Path) -> None:
    assert parts.host_mirror(etc(tmp_path, OS, {"sources.list.d/d.sources": OWN + "Enabled: no\n"})) == ""


def test_another_distribution_has_no_debian_mirror(parts: Any, tmp_path: Path) -> None:
    other = OS.replace("ID=debian", "ID=ubuntu")
    assert parts.host_mirror(etc(tmp_path, other, {"sources.list.d/d.sources": OWN})) == ""


def test_the_hash_sees_every_input(parts: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x")
    first = parts.inputs_hash(tmp_path, {"A": "1"}, "debian:trixie")
    assert parts.inputs_hash(tmp_path, {"A": "1"}, "debian:trixie") == first
    assert parts.inputs_hash(tmp_path, {"A": "2"}, "debian:trixie") != first
    assert parts.inputs_hash(tmp_path, {"A": "1"}, "debian:forky") != first
    (tmp_path / "Dockerfile").write_text("FROM y")
    assert parts.inputs_hash(tmp_path, {"A": "1"}, "debian:trixie") != first
