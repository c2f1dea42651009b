"""What programs of a host say, read into data; and the look itself, for real on this machine."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loading import loaded

parts = loaded("playbooks/module_utils/host_parts.py")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.host_parts", parts)
    import ansible.module_utils

    monkeypatch.setattr(ansible.module_utils, "host_parts", parts, raising=False)
    found: ModuleType = loaded("playbooks/library/host_look.py")
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n',
         {"id": "debian", "like": [], "version": "13", "name": "Debian GNU/Linux 13 (trixie)"}),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
         {"id": "rocky", "like": ["rhel", "centos", "fedora"], "version": "9.4", "name": ""}),
        ("", {"id": "", "like": [], "version": "", "name": ""}),
    ],
)  # fmt: skip
def test_the_operating_system(text: str, found: dict[str, Any]) -> None:
    assert parts.os_release(text) == found


@pytest.mark.parametrize(
    ("mokutil", "variable", "efi", "state"),
    [
        ("SecureBoot enabled\n", b"", True, "enabled"),
        ("SecureBoot enabled\nSecureBoot validation is disabled in shim\n", b"\x06\0\0\0\1", True, "disabled"),
        ("SecureBoot disabled\nPlatform is in Setup Mode\n", b"\x06\0\0\0\1", True, "disabled"),
        ("", b"\x06\0\0\0\1", True, "enabled"),
        ("", b"\x06\0\0\0\0", True, "disabled"),
        ("EFI variables are not supported on this system\n", b"", False, "unsupported"),
        ("", b"", True, ""),
        ("", b"\x06", True, ""),
    ],
)
def test_secure_boot(mokutil: str, variable: bytes, efi: bool, state: str) -> None:
    assert parts.secure_boot(mokutil, variable, efi) == state


@pytest.mark.parametrize(
    ("told", "enrolled"),
    [
        ("/k.der is already enrolled\n", True),
        ("/k.der is already in db\n", True),
        ("/k.der is already in the built-in trusted keyring\n", True),
        ("/k.der is already in the enrollment request\n", False),
        ("/k.der is blocked in dbx\n", False),
        ("CA of /k.der is already enrolled\n", True),
        ("/k.der is not enrolled\n", False),
        ("", False),
    ],
)
def test_a_key_that_the_firmware_or_the_kernel_knows(told: str, enrolled: bool) -> None:
    assert parts.key_enrolled(told) == enrolled


def test_packages_holds_and_updates() -> None:
    listed = "nvidia-driver 550.163.01-2 ii \nlibcuda1 550.163.01-2 hi \nnvidia-smi 535.1 rc \nbroken\n"
    assert parts.packages(listed) == {"nvidia-driver": "550.163.01-2", "libcuda1": "550.163.01-2"}
    assert parts.held(listed) == ["libcuda1"]
    assert parts.packages("nvidia-driver 3:580.95.05-1.el9\n") == {"nvidia-driver": "3:580.95.05-1.el9"}
    dump = (
        'APT::Periodic::Unattended-Upgrade "1";\nUnattended-Upgrade::Package-Blacklist "";\n'
        'Unattended-Upgrade::Package-Blacklist:: "nvidia-.*";\n'
        'Unattended-Upgrade::Package-Blacklist:: "libnvidia-.*";\n'
    )
    assert parts.apt_updates(dump) == {"enabled": True, "blacklist": ["nvidia-.*", "libnvidia-.*"]}
    assert parts.apt_updates('APT::Periodic::Unattended-Upgrade "0";') == {"enabled": False, "blacklist": []}
    assert parts.apt_updates("") == {"enabled": False, "blacklist": []}
    assert parts.dnf_locks("# comment\nnvidia-driver-3:580.95.05-1.*\n\n") == ["nvidia-driver-3:580.95.05-1.*"]
    assert parts.dnf_locks('version = "1.0"\n[[packages]]\nname = "nvidia-driver"\n') == ["nvidia-driver"]
    assert parts.dnf_locks("[[packages]]\n") == []


INFO = {
    "ServerVersion": "28.2.2", "Driver": "overlay2", "CgroupDriver": "systemd", "CgroupVersion": "2",
    "LiveRestoreEnabled": True, "DockerRootDir": "/srv/docker", "CDISpecDirs": ["/etc/cdi"],
    "RegistryConfig": {"Mirrors": ["https://mirror.example/"]}, "HttpsProxy": "http://me:secret@proxy:3128",
}  # fmt: skip


def test_the_engines_word_about_itself() -> None:
    found = parts.docker_info(json.dumps(INFO))
    assert (found["answers"], found["version"], found["live_restore"], found["cdi"]) == (True, "28.2.2", True, True)
    assert found["ways"] == ["https://mirror.example/", "http://proxy:3128"]
    dead = parts.docker_info('{"ServerErrors": ["Cannot connect to the Docker daemon"]}')
    assert dead == {"answers": False, "why": "Cannot connect to the Docker daemon"}
    for text in ("", "no JSON", "[]", "null", "{}"):
        assert parts.docker_info(text) == {"answers": False, "why": ""}


SPEC = """\
---
cdiVersion: 0.5.0
containerEdits:
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not-a-device
  name: "0"
- name: GPU-5e1f
  containerEdits: {}
- containerEdits:
    env: []
  name: all
kind: nvidia.com/gpu
"""


def test_cdi_devices() -> None:
    listed = 'time="2026-11-20T10:00:00Z" level=info msg="Found 2 CDI devices"\nnvidia.com/gpu=0\nnvidia.com/gpu=all\n'
    assert parts.cdi_devices(listed) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    wanted = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5e1f", "nvidia.com/gpu=all"]
    assert parts.cdi_spec(SPEC) == wanted
    assert parts.cdi_spec('{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}') == ["nvidia.com/gpu=0"]
    for text in ("", "kind: nvidia.com/gpu\n", "devices:\n- name: a\n", '{"kind": 1}', "[1]", "devices:\nkind: x/y\n"):
        assert parts.cdi_spec(text) == []


def test_gpus_of_a_container() -> None:
    listed = (
        "GPU 0: NVIDIA L40S (UUID: GPU-aaaa)\nGPU 1: NVIDIA A100 (UUID: GPU-bbbb)\n"
        "  MIG 1g.5gb     Device  0: (UUID: MIG-cccc)\nwarning\n"
    )
    assert parts.gpu_uuids(listed) == ["GPU-aaaa", "GPU-bbbb"]


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0
   2: broken
   3: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0
   4: nonsense:x 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st ...
   0: 00000000000000000000000000000000:20D4 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 21 1 0 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:20D5 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 22 1 0 100 0 0 10 0
"""


def test_listeners() -> None:
    assert parts.listeners(TCP) == [
        {"address": "127.0.0.1", "port": 8000, "inode": "11"},
        {"address": "0.0.0.0", "port": 22, "inode": "13"},
    ]
    assert [(entry["address"], entry["port"]) for entry in parts.listeners(TCP6)] == [("::", 8404), ("127.0.0.1", 8405)]
    assert parts.listeners("") == []


def test_containers_behind_processes() -> None:
    number = "a" * 64
    assert parts.container_of(f"12:pids:/docker/{number}\n0::/\n") == number
    assert parts.container_of(f"0::/system.slice/docker-{number}.scope\n") == number
    assert parts.container_of("0::/user.slice\n") == ""
    entry = {
        "Id": number, "Name": "/vllm-a", "Config": {"Image": "x", "Labels": {"deployctl.site": "local"}},
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8501"}], "9/tcp": None}},
    }  # fmt: skip
    assert parts.containers(json.dumps([entry, {"Id": "b", "Config": {"Labels": None}}])) == [
        {"id": number, "name": "vllm-a", "site": "local", "image": "x", "ports": [8501]},
        {"id": "b", "name": "", "site": "", "image": "", "ports": []},
    ]
    assert parts.containers("no JSON") == parts.containers("") == []


def test_memory() -> None:
    assert parts.memory("MemTotal: 16777216 kB\nMemAvailable:  1048576 kB\n") == {"total_gib": 16, "available_gib": 1}
    assert parts.memory("") == {"total_gib": None, "available_gib": None}


def test_the_look_for_real(module: ModuleType, tmp_path: Path) -> None:
    store = tmp_path / "store" / "model-a"
    store.mkdir(parents=True)
    (store / ".deployctl.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        needs = {
            "ports": [{"port": port, "address": "127.0.0.1"}, {"port": 1, "address": "0.0.0.0"}],
            "folders": [str(tmp_path / "not" / "there"), str(tmp_path)],
            "models": {"a": str(store), "b": str(tmp_path / "b")},
            "urls": [{"url": "http://127.0.0.1:1/", "env": {}, "ca_file": ""}, {"url": f"file://{tmp_path}"}],
        }
        look = module.look(module.Probes(needs, time.time() - 60, 10, 10), 60)
    assert look["errors"] == {}
    assert set(module.PROBES) | {"errors"} == set(look)
    assert look["os"]["arch"] and look["kernel"]["release"] and look["memory"]["total_gib"] > 0
    assert [(entry["port"], entry["process"] != "") for entry in look["ports"]] == [(port, True)]
    assert look["ports"][0]["address"] == "127.0.0.1" and look["ports"][0]["site"] == ""
    assert [entry["at"] for entry in look["folders"]][:2] == [str(tmp_path), str(tmp_path)]
    assert look["folders"][-1]["engine"] and look["folders"][0]["free_gib"] > 0
    assert look["models"] == ["a"]
    assert [answer["ok"] for answer in look["urls"]] == [False, False]
    assert look["clock"]["ahead_seconds"] > 0
    assert sorted(tmp_path.rglob("*")) == before
    json.dumps(look)


def test_a_bare_host_is_an_answer_too(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(module.Probes, "run", lambda *_words, **_more: (_ for _ in ()).throw(FileNotFoundError()))
    needs = {"gpu_images": ["vllm/vllm-openai:v1"], "images": ["x"]}
    look = module.look(module.Probes(needs, None, 5, 5), 30)
    assert look["errors"] == {}
    assert look["docker"] == {"present": False, "answers": False, "candidate": ""}
    assert (look["toolkit"], look["packages"]["kind"]) == ("", "")
    assert look["gpu_container"] == {"state": "skipped", "why": "none of the images is here yet"}
    assert look["clock"] == {"ahead_seconds": None, "ntp": None}


def test_a_probe_that_breaks_or_hangs_is_an_error_and_no_more(module: ModuleType) -> None:
    free = threading.Event()

    class Broken(module.Probes):  # type: ignore[misc, name-defined]
        def docker(self) -> dict[str, Any]:
            raise KeyError("lost")

        def toolkit(self) -> str:
            free.wait(30)
            return ""

    look = module.look(Broken({}, None, 5, 5), 2)
    free.set()
    assert look["errors"]["docker"] == "KeyError: 'lost'"
    assert look["errors"]["toolkit"] == "no answer within 2 s"
    assert look["docker"] is None and look["os"]["arch"]


def simulated(folder: Path, name: str, script: str) -> None:
    """A program of this name that says what a test wants: a simulation of the host's own."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_container_that_sees_gpus_one_that_fails_and_one_that_hangs(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    probes = module.Probes({"gpu_images": ["absent", "there"]}, None, 5, 1)
    log = tmp_path / "log"
    images = f'echo "$*" >>{log}; if [ "$1" = image ]; then [ "$3" = there ] && echo there; exit; fi'
    simulated(tmp_path, "docker", f"{images}; echo 'GPU 0: NVIDIA L40S (UUID: GPU-aaaa)'")
    assert probes.gpu_container() == {"state": "ok", "uuids": ["GPU-aaaa"], "image": "there"}
    run = next(line for line in log.read_text().splitlines() if line.startswith("run"))
    assert "--pull never --network none --device nvidia.com/gpu=all --entrypoint nvidia-smi there -L" in run
    words = "docker: Error response from daemon: CDI device injection failed"
    simulated(tmp_path, "docker", f"{images}; echo '{words}' >&2; echo 'Run help' >&2; exit 125")
    assert probes.gpu_container() == {"state": "failed", "why": words, "image": "there"}
    simulated(tmp_path, "docker", f"{images}; [ $1 = run ] && exec sleep 30")
    assert probes.gpu_container()["why"] == "no answer within 1 s"
    assert log.read_text().splitlines()[-1].startswith("rm --force deployctl-doctor-")
