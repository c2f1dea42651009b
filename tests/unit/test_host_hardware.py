"""What files and programs of a host say of its hardware, read into data; and the look itself, on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loading import loaded

parts = loaded("playbooks/module_utils/hardware_parts.py")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import ansible.module_utils

    for name, part in (("hardware_parts", parts), ("host_programs", loaded("playbooks/module_utils/host_programs.py"))):
        monkeypatch.setitem(sys.modules, f"ansible.module_utils.{name}", part)
        monkeypatch.setattr(ansible.module_utils, name, part, raising=False)
    found: ModuleType = loaded("playbooks/library/host_hardware.py")
    return found


def cpuinfo(sockets: int, cores: int, threads: int) -> str:
    """/proc/cpuinfo of a server, in the kernel's order: each socket's cores, then their second threads."""
    blocks: list[str] = []
    for thread in range(threads):
        for socket in range(sockets):
            for core in range(cores):
                number = len(blocks)
                blocks.append(f"processor\t: {number}\nmodel name\t: AMD EPYC: 9654\nphysical id\t: {socket}\n"
                              f"core id\t\t: {core}\nflags\t\t: fpu vme\n")  # fmt: skip
        assert thread < 2
    return "\n".join(blocks)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (cpuinfo(2, 4, 2), {"model": "AMD EPYC: 9654", "sockets": 2, "cores": 8, "threads": 16}),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", {"model": "", "sockets": None, "cores": None, "threads": 1}),
        ("", {"model": "", "sockets": None, "cores": None, "threads": None}),
    ],
)
def test_processors(text: str, found: dict[str, Any]) -> None:
    assert parts.cpu(text) == found


MOUNTS = r"""
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:5 / /dev rw - devtmpfs udev rw
30 22 259:0 / /srv/nvme\0400 rw,noatime - xfs /dev/nvme0n1 rw
31 22 259:0 /models /very/long/bind rw - xfs /dev/nvme0n1 rw
32 22 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
33 22 0:50 / /home rw - nfs4 server:/home rw
34 22 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
35 22 8:3 / /mnt/ro ro,relatime - ext4 /dev/sda3 ro
36 22 0:44 / /data rw shared:9 master:1 - btrfs /dev/sdb rw
nonsense
""".strip()


def test_mount_points() -> None:
    found = [(one["path"], one["device"], one["number"], one["read_only"]) for one in parts.mounts(MOUNTS)]
    assert found == [
        ("/", "/dev/sda2", "8:2", False),
        ("/data", "/dev/sdb", "0:44", False),
        ("/mnt/ro", "/dev/sda3", "8:3", True),
        ("/srv/nvme 0", "/dev/nvme0n1", "259:0", False),
    ]
    container = "1 0 0:60 / / rw - overlay overlay rw"
    assert [one["path"] for one in parts.mounts(container)] == ["/"]


def test_addresses_and_the_default_route() -> None:
    told = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {"ifname": "eno1", "addr_info": [
            {"local": "192.0.2.10", "scope": "global"}, {"local": "fe80::1", "scope": "link"},
            {"local": "2001:db8::1", "scope": "global"},
            {"local": "2001:db8::ffff", "scope": "global", "temporary": True}]},
    ]  # fmt: skip
    assert parts.addresses(json.dumps(told)) == {"lo": [], "eno1": ["192.0.2.10", "2001:db8::1"]}
    routes = [{"dst": "default", "dev": "wlan0", "metric": 600}, {"dst": "default", "dev": "eno1", "metric": 100}]
    assert parts.default_interface(json.dumps(routes)) == "eno1"
    table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    table += "eth1 00000000 0102000A 0003 0 0 50 00000000 0 0 0\neth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
    table += "eth2 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    assert parts.default_of_table(table) == "eth0"
    for text in ("", "nonsense", "{}", "[1]", "null"):
        assert (
            parts.addresses(text) == {} and parts.default_interface(text) == "" and parts.default_of_table(text) == ""
        )


def test_the_look_at_this_machine(module: ModuleType) -> None:
    found = module.look(10)
    assert found["errors"] == {}
    json.dumps(found)
    assert found["cpu"]["threads"] >= 1 and found["memory_gib"] > 0 and found["name"]
    root = next(mount for mount in found["mounts"] if mount["path"] == "/")
    assert 0 <= root["free_gib"] <= root["total_gib"]
    assert "lo" not in [one["name"] for one in found["interfaces"]]


def test_without_ip_the_kernel_is_asked(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def same(found: list[dict[str, Any]]) -> list[tuple[str, bool, set[str]]]:
        return [(one["name"], one["default"], {a for a in one["addresses"][:1] if "." in a}) for one in found]

    with_ip = same(module.interfaces(10))
    monkeypatch.setattr(module, "said", lambda *_words: "")
    assert same(module.interfaces(10)) == with_ip


def test_a_part_that_breaks_is_named(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Any]:
        raise RuntimeError("no luck")

    monkeypatch.setattr(module, "mounts", broken)
    found = module.look(10)
    assert found["mounts"] is None and found["errors"] == {"mounts": "RuntimeError: no luck"}
    assert found["cpu"]


def test_drives_are_found_through_layers(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A logical volume on a RAID of two NVMe partitions, as /sys shows it."""
    block = tmp_path / "devices"
    for name in ("nvme0n1", "nvme1n1"):
        (block / name / "device").mkdir(parents=True)
        (block / name / "device/model").write_text("SAMSUNG  MZQL \n")
        (block / name / "queue").mkdir()
        (block / name / "queue/rotational").write_text("0\n")
        (block / name / f"{name}p1").mkdir()
        (block / name / f"{name}p1" / "partition").write_text("1\n")
    for name, below in (("md0", ["nvme0n1/nvme0n1p1", "nvme1n1/nvme1n1p1"]), ("dm-0", ["md0"])):
        (block / name / "slaves").mkdir(parents=True)
        for one in below:
            (block / name / "slaves" / Path(one).name).symlink_to(block / one)
    (tmp_path / "253:0").symlink_to(block / "dm-0")

    def moved(path: str) -> Path:
        return Path(str(path).replace("/sys/dev/block", str(tmp_path)))

    monkeypatch.setattr(module, "Path", moved)
    found = module.drives("253:0")
    assert [(one["name"], one["model"], one["nvme"]) for one in found] == [
        ("nvme0n1", "SAMSUNG MZQL", True),
        ("nvme1n1", "SAMSUNG MZQL", True),
    ]
    assert module.drives("0:99") == []
