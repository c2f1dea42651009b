"""The Docker engine's version: what fits, what comes, what is refused. A real upgrade runs in molecule/docker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from loading import loaded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def role() -> Any:
    ansible.module_utils.__path__.append(str(ROOT / "playbooks/module_utils"))
    yield loaded("roles/docker/library/docker_engine_plan.py")
    ansible.module_utils.__path__.remove(str(ROOT / "playbooks/module_utils"))
    sys.modules.pop("ansible.module_utils.host_parts", None)


OLD, NEW = "5:28.3.3-1~debian.13~trixie", "5:29.0.1-1~debian.13~trixie"
FOUND: dict[str, Any] = {
    "manager": "apt", "program": "/usr/bin/dockerd", "package": "docker-ce",
    "installed": {"docker-ce": OLD, "docker-ce-cli": OLD}, "held": [], "stale": False,
    "candidates": {"docker-ce": [NEW, OLD], "docker-ce-cli": [NEW, OLD], "docker-ce-rootless-extras": [NEW, OLD]},
    "complaint": "",
}  # fmt: skip
RPM = {
    "manager": "dnf", "installed": {"docker-ce": "3:28.3.3-1.el9", "docker-ce-cli": "1:28.3.3-1.el9"},
    "candidates": {"docker-ce": ["3:29.0.1-1.el9"], "docker-ce-cli": ["1:29.0.1-1.el9"]},
}  # fmt: skip
FRESH = {"program": "", "package": "", "installed": {}}
PACKAGES = ["docker-ce", "docker-ce-cli", "iptables"]


@pytest.mark.parametrize(
    ("version", "wanted", "fitting"),
    [
        (OLD, "28.3", True),
        (OLD, "28.3.3", True),
        (OLD, OLD, True),
        (OLD, OLD[2:], True),
        (OLD, "5:28", True),
        (OLD, "28.30", False),
        (OLD, "28.3.30", False),
        (OLD, "5", False),
        ("28.30.1-1", "28.3", False),
        ("26.1.5+dfsg1-9+b4", "26.1.5", True),
        ("26.1.5+dfsg1-9+b4", "26.1.5+dfsg1-9+b", False),
    ],
)
def test_a_version_is_named_or_begun(role: Any, version: str, wanted: str, fitting: bool) -> None:
    assert role.fits(version, wanted) is fitting


def plan(role: Any, wanted: str, **found: Any) -> Any:
    return role.plan({**FOUND, **found}, wanted, PACKAGES)


def test_what_fits_stays(role: Any) -> None:
    told = plan(role, "28.3", candidates={})
    assert (told["change"], told["install"], told["problems"]) == (False, [], [])


def test_what_differs_changes_with_what_belongs_to_it(role: Any) -> None:
    told = plan(role, "29")
    assert told["change"] and told["target"] == NEW
    assert told["install"] == [f"docker-ce={NEW}", f"docker-ce-cli={NEW}"]


def test_an_older_one_differs_too(role: Any) -> None:
    installed = {"docker-ce": NEW, "docker-ce-cli": NEW}
    assert plan(role, "28", installed=installed)["install"] == [f"docker-ce={OLD}", f"docker-ce-cli={OLD}"]


def test_the_newest_that_fits_comes(role: Any) -> None:
    versions = ["5:28.3.3-1", "5:28.3.2-1", "5:27.5-1"]
    installed = {"docker-ce": "5:27.5-1"}
    assert plan(role, "28.3", installed=installed, candidates={"docker-ce": versions})["target"] == "5:28.3.3-1"


def test_epochs_differ_among_the_packages_of_dnf(role: Any) -> None:
    assert plan(role, "29", **RPM)["install"] == ["docker-ce-3:29.0.1-1.el9", "docker-ce-cli-1:29.0.1-1.el9"]


def test_what_the_sources_do_not_have_beside_it_is_left(role: Any) -> None:
    assert plan(role, "29", candidates={"docker-ce": [NEW], "docker-ce-cli": [OLD]})["install"] == [f"docker-ce={NEW}"]


def test_an_engine_that_was_replaced_on_the_disk_alone_is_restarted(role: Any) -> None:
    told = plan(role, "28.3", stale=True)
    assert (told["change"], told["restart"], told["install"]) == (True, True, [])


def test_what_was_unpacked_and_not_set_up_comes_again(role: Any) -> None:
    assert plan(role, "29", installed={"docker-ce-cli": NEW})["change"]


def test_a_host_without_an_engine_gets_the_wanted_one(role: Any) -> None:
    told = plan(role, "28.3", **FRESH)
    assert not told["change"] and not told["problems"]
    assert told["install"] == [f"docker-ce={OLD}", f"docker-ce-cli={OLD}", "iptables"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"package": "", "program": "/usr/local/bin/dockerd"}, ["/usr/local/bin/dockerd belongs to no package"]),
        ({"candidates": {"docker-ce": [OLD]}}, ["has docker-ce 29", f"they have {OLD}"]),
        ({"candidates": {}, "complaint": "W: no network"}, ["they have none (W: no network)"]),
        ({"held": ["docker-ce-cli"]}, ["held, and not by deployctl: docker-ce-cli"]),
        ({**FRESH, "candidates": {}}, ["has docker-ce 29", "they have none"]),
        ({"held": ["docker-ce"], "candidates": {}}, ["they have none", "held, and not by deployctl: docker-ce"]),
    ],
)
def test_what_cannot_come_is_refused_with_a_way_out(role: Any, found: dict[str, Any], words: list[str]) -> None:
    told = plan(role, "29", **found)
    assert not told["change"]
    assert [word for word in words if not any(word in one["what"] for one in told["problems"])] == []
    assert all("docker_version" in one["hint"] for one in told["problems"])


def test_packages_without_an_engine_are_refused(role: Any) -> None:
    told = role.plan({**FOUND, **FRESH, "candidates": {}}, "29", ["podman"])
    assert "none of docker_packages is an engine known here" in told["problems"][0]["what"]


def test_what_stays_may_be_held(role: Any) -> None:
    assert plan(role, "28.3", held=["docker-ce"])["problems"] == []


def test_versions_of_apt_are_read_in_apts_order(role: Any) -> None:
    text = (
        f" docker-ce | {NEW} | https://example.org x\n docker-ce | {NEW} | mirror\n docker-ce | {OLD} | x\nW: words\n"
    )
    assert role.madison(text) == {"docker-ce": [NEW, OLD]}


def test_versions_are_sorted_by_their_numbers(role: Any) -> None:
    versions = ["3:28.3.3-1.el9", "3:29.0.0~rc.1-1.el9", "3:28.10.0-1.el9", "3:29.0.0-1.el9"]
    assert sorted(versions, key=role.order) == [versions[0], versions[2], versions[1], versions[3]]
