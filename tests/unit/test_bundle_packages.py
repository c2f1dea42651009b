"""Packages of driver, toolkit and firewall in a bundle: what is asked for, and what a host is refused for.

apt itself resolves them in molecule/bundle, out of a simulated repository of the vendor and Debian's own archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_nvidia_driver_facts import TABLES, WANTED, plan, role

from deploy_cli.bundle import manifest, pack, packages, report

KERNEL = "6.12.94+deb13-amd64"


def packed(*releases: str, kernels: tuple[str, ...] = (), **wanted: Any) -> Any:
    tables = {release: TABLES.get(release, {}) for release in releases}
    return role.nvidia_driver_packed(tables, {**WANTED, **wanted}, list(kernels))


@pytest.mark.parametrize("release", ["Debian12", "Debian13", "Ubuntu22", "Ubuntu24"])
@pytest.mark.parametrize(("source", "prebuilt"), [("vendor", False), ("distribution", False), ("distribution", True)])
@pytest.mark.parametrize("modules", ["open", "proprietary"])
@pytest.mark.parametrize("branch", [535, 550, 580, 595])
def test_a_bundle_holds_what_the_role_installs(
    release: str, source: str, prebuilt: bool, modules: str, branch: int
) -> None:
    asked: dict[str, Any] = {
        "source": source,
        "prebuilt": prebuilt,
        "modules": modules,
        "branch": branch,
        "branch_min": 0,
    }
    host = plan(release, state={"kernel": KERNEL, "nvswitch": True}, **asked)
    found = packed(release, kernels=(KERNEL,), **asked)
    if host["problems"]:
        assert found["sets"] == []
        assert [(one["what"].replace(release, "Debian 13.1"), one["hint"]) for one in found["problems"]] == [
            (one["what"], one["hint"]) for one in host["problems"]
        ]
        return
    (one,) = found["sets"]
    assert one["names"] == host["pin"] + host["packages"]
    assert one["pins"] == host["pin"] and one["somewhere"] == host["headers"]
    assert list(one["matching"]) == [host["fabric_manager"]] * bool(host["fabric_manager"])
    assert one["components"] == host["repository"]["components"]
    assert one["sources"] == [host["repository"]["line"]] * (source == "vendor")
    assert [key["from"].rsplit("/", 1)[1] for key in one["keys"]] == [host["repository"]["keyring"]] * (
        source == "vendor"
    )


def test_without_kernels_come_the_headers_of_the_newest() -> None:
    debian, ubuntu = packed("Debian13", "Ubuntu24")["sets"]
    assert "linux-headers-amd64" in debian["names"] and "linux-headers-generic" in ubuntu["names"]
    assert debian["somewhere"] == ubuntu["somewhere"] == []
    assert "linux-headers-arm64" in packed("Debian13", architecture="aarch64")["sets"][0]["names"]
    (named,) = packed("Debian13", kernels=("6.1.0-1-amd64", "6.1.0-2-amd64"))["sets"]
    assert named["somewhere"] == ["linux-headers-6.1.0-1-amd64", "linux-headers-6.1.0-2-amd64"]
    assert "linux-headers-amd64" not in named["names"]
    unasked = packed("Debian13", headers=False)["sets"][0]
    assert not [name for name in unasked["names"] + unasked["somewhere"] if "headers" in name]


def test_modules_follow_the_declared_gpus_and_the_key_its_home() -> None:
    old = [{"kind": "nvidia", "compute_capability": "7.0"}]
    assert "cuda-drivers" in packed("Debian13", devices=old)["sets"][0]["names"]
    (one,) = packed("Debian13", keyring="/srv/keyring.deb")["sets"]
    assert one["keys"] == [{"from": "/srv/keyring.deb", "at": ""}]


def test_a_release_without_such_a_driver_is_told_and_the_others_are_packed() -> None:
    found = packed("Debian12", "Debian13", "Debian99", source="distribution", branch=550)
    assert [one["release"] for one in found["sets"]] == ["Debian13"]
    assert [one["release"] for one in found["problems"]] == ["Debian12", "Debian99"]


def wanted(**more: Any) -> dict[str, Any]:
    base = {
        "release": "Debian13",
        "suite": "trixie",
        "mirror": "http://example.org/debian",
        "components": "main",
    }
    return {**base, "sources": ["deb http://more.example.org {suite} main"], "names": ["python3"], "sets": [], **more}


def test_a_set_has_sources_and_keys_of_its_own(tmp_path: Path) -> None:
    key = tmp_path / "own.asc"
    key.write_text("key")
    one = {
        "names": ["b=2-1", "a"], "somewhere": ["headers-1"], "matching": {"fabric": "a"}, "pins": ["pin-580"],
        "components": ["contrib", "main"], "sources": ["deb http://vendor.example.org/ /"],
        "keys": [{"from": "https://vendor.example.org/key.deb", "at": ""}, {"from": str(key), "at": "/k/own.asc"}],
    }  # fmt: skip
    packages.lay_out(tmp_path, 3, wanted(), one)
    written = {file.name: file.read_text() for file in (tmp_path / "sets/003").iterdir()}
    assert written == {
        "names": "a\nb=2-1\n", "maybe": "headers-1\nfabric a\n", "pins": "pin-580\n", "key1": "key",
        "keys": "https://vendor.example.org/key.deb unpack\n/in/sets/003/key1 /k/own.asc\n",
        "sources.list": "deb http://example.org/debian trixie main contrib\n"
        "deb http://example.org/debian trixie-updates main contrib\n"
        "deb http://more.example.org trixie main\ndeb http://vendor.example.org/ /\n",
    }  # fmt: skip
    assert packages.asked(wanted(sets=[one])) == ["a", "b", "fabric", "headers-1", "python3"]


def test_what_no_release_has_is_known() -> None:
    asked = [wanted(sets=[{"names": ["a"], "somewhere": ["headers-1", "headers-2"], "matching": {"fabric": "a"}}])]
    entries = {"Debian12": {"names": ["a", "headers-1"]}, "Debian13": {"names": ["a"]}}
    assert packages.nowhere(asked, entries) == ["headers-2"]


def test_index_is_read_with_every_version() -> None:
    index = "Package: a\nVersion: 1:2-1\nDescription: x\n\nPackage: a\nVersion: 3\n\nPackage: b\nVersion: 1\n"
    assert packages.versions_in(index) == {"a": ["1:2-1", "3"], "b": ["1"]}


def refused(*names: str, **held: Any) -> list[tuple[str, str]]:
    entry = {
        "folder": "packages/Debian13",
        "names": ["tool"],
        "versions": {"tool": ["1.20.0-1"]},
        "left_out": [],
        **held,
    }
    told = manifest.lacks(
        {"architecture": "amd64", "models": [], "images": [], "packages": {"Debian13": entry}},
        "far",
        {"release": "Debian13", "architecture": "x86_64", "kernel": KERNEL, "packages": list(names)},
    )
    return [(problem.what, problem.hint) for problem in told]


def test_a_host_is_refused_for_headers_that_are_nowhere() -> None:
    assert refused("tool", "tool=1.20.0-1") == []
    (problem,) = refused(f"linux-headers-{KERNEL}")
    assert f"linux-headers-{KERNEL}, which neither the host has nor the bundle" in problem[0]
    assert f"`bundle_kernels: [{KERNEL}]`" in problem[1]
    assert refused(f"linux-headers-{KERNEL}", versions={f"linux-headers-{KERNEL}": ["6"]}) == []


def test_a_host_is_refused_for_another_version_or_branch() -> None:
    both = refused("tool=1.21.0-1", "nvidia-driver-pinning-595", f"linux-headers-{KERNEL}")
    assert len(both) == 2, "headers and the rest, both at once"
    assert "hold no nvidia-driver-pinning-595, tool=1.21.0-1" in both[1][0]
    entry = {"folder": "packages/Debian13", "names": ["tool"]}  # as an earlier deployctl packed it
    old = {"architecture": "amd64", "models": [], "images": [], "packages": {"Debian13": entry}}
    assert manifest.lacks(old, "far", {"release": "Debian13", "packages": ["tool"]}) == []


def test_whoever_packs_is_told_what_was_left_out_and_which_kernels_fit() -> None:
    entries = {"Debian13": {"left_out": ["fabric"]}, "Debian12": {"left_out": []}}
    told = pack.notes({"notes": ["no kernels"]}, entries)
    assert told == ["no kernels", "not in the archives of Debian13, and so left out: fabric"]
    done = {"file": "/x.tar", "id": "i", "size": 1, "parts": {}, "reused": 0, "notes": told}
    assert "note: no kernels" in report.lines(done, Path("i.yml"))
    dry = {"file": "/x.tar", "expected": [], "notes": told[:1]}
    assert report.lines(dry, Path("i.yml"))[-1] == "note: no kernels"
