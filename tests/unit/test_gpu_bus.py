"""GPUs on the bus that the driver does not know: lost ones, and those that are another driver's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from loading import ROOT, loaded

UTILS = ROOT / "playbooks/module_utils"
Look = Callable[..., dict[str, Any]]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    ansible.module_utils.__path__.append(str(UTILS))
    yield loaded("playbooks/library/gpu_facts.py")
    ansible.module_utils.__path__.remove(str(UTILS))
    for name in (file.stem for file in UTILS.glob("*.py")):
        sys.modules.pop(f"ansible.module_utils.{name}", None)
        vars(ansible.module_utils).pop(name, None)


@pytest.fixture
def look(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Facts of a host: {address: driver it is bound to} on the bus, and the addresses that nvidia-smi tells."""

    def facts(bus: dict[str, str], told: list[str]) -> dict[str, Any]:
        for address, driver in bus.items():
            folder = tmp_path / "devices" / address
            folder.mkdir(parents=True)
            for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("device", "0x26b9"), ("numa_node", "0")):
                (folder / name).write_text(f"{text}\n")
            if driver:
                (tmp_path / "drivers" / driver).mkdir(parents=True, exist_ok=True)
                (folder / "driver").symlink_to(tmp_path / "drivers" / driver)
        gpus = "".join(
            f'<gpu id="0000{address}"><product_name>L40S</product_name><uuid>GPU-{address}</uuid>'
            f"<fb_memory_usage><total>46068 MiB</total></fb_memory_usage></gpu>"
            for address in told
        )
        said = f"<nvidia_smi_log><driver_version>580.95.05</driver_version>{gpus}</nvidia_smi_log>"
        monkeypatch.setattr(module, "DEVICES", tmp_path / "devices")
        monkeypatch.setattr(module, "run", lambda _timeout, *words: (said if words[0] == "-q" else "", ""))
        monkeypatch.setattr(module, "kernel_module", lambda: ("580.95.05", True))
        monkeypatch.setattr(module, "library", lambda: "580.95.05")
        found: dict[str, Any] = module.look(5)
        return found

    return facts


A, B = "0000:01:00.0", "0000:41:00.0"


@pytest.mark.parametrize("driver", ["vfio-pci", "nouveau"])
def test_a_gpu_that_is_another_drivers_is_not_lost(look: Look, driver: str) -> None:
    found = look({A: "nvidia", B: driver}, [A])
    (told,) = found["problems"]
    assert (told["code"], told["gpu"]) == ("gpu_elsewhere", B)
    assert driver in told["what"] and "nvidia" in told["hint"]
    assert [one["driver"] for one in found["pci"]] == ["nvidia", driver]


@pytest.mark.parametrize("driver", ["", "nvidia"])
def test_a_gpu_that_should_answer_is_lost(look: Look, driver: str) -> None:
    (told,) = look({A: "nvidia", B: driver}, [A])["problems"]
    assert (told["code"], told["gpu"]) == ("gpu_lost", B)
    assert "power" in told["hint"], "the hint for a lost GPU, and no other"


@pytest.mark.parametrize("driver", ["", "nvidia"])
def test_a_driver_that_tells_no_gpu_where_the_bus_has_one(look: Look, driver: str) -> None:
    (told,) = look({A: driver, B: driver}, [])["problems"]
    assert (told["code"], told["gpu"]) == ("no_gpu", None)
    assert A in told["what"] and B in told["what"]


def test_a_host_whose_gpus_are_all_passed_on(look: Look) -> None:
    found = look({A: "vfio-pci"}, [])
    assert [problem["code"] for problem in found["problems"]] == ["gpu_elsewhere"]


def test_gpus_that_do_not_tell_their_place_are_not_lost(
    look: Look, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    look({A: "nvidia", B: "nvidia"}, [A, B])
    listed = "GPU 0: NVIDIA L40S (UUID: GPU-a)\nGPU 1: NVIDIA L40S (UUID: GPU-b)\n"
    monkeypatch.setattr(module, "run", lambda _timeout, *words: (listed if words[0] == "-L" else "odd", ""))
    assert "gpu_lost" not in {problem["code"] for problem in module.look(5)["problems"]}


def test_a_host_without_gpus(look: Look) -> None:
    assert [problem["code"] for problem in look({}, [])["problems"]] == ["no_gpu"]


def test_different_versions_have_their_own_hint(
    look: Look, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    look({A: "nvidia"}, [A])
    monkeypatch.setattr(module, "library", lambda: "580.105.08")
    (told,) = module.look(5)["problems"]
    assert told["code"] == "version_mismatch" and "reboot" in told["hint"]


EVEN = ",".join(str(number) for number in range(0, 128, 2))


@pytest.mark.parametrize(
    ("local", "node", "affinity", "cpus"),
    [
        (EVEN, "", "0,2,4,6,8,10", EVEN),  # the kernel tells all 64 of which nvidia-smi tells six
        ("", EVEN, "0,2,4,6,8,10", EVEN),
        ("0-31", "0-63", "0-7", "0-31"),
        ("", "", "0,2,4,6,8,10", None),  # rather none than a few
        ("", "", "0,2,4,6,8", "0,2,4,6,8"),
        ("", "", "0-31,64-95", "0-31,64-95"),
    ],
)
def test_cpus_come_from_the_kernel_and_never_from_a_list_that_is_cut(
    look: Look, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: str, node: str,
    affinity: str, cpus: str | None,
) -> None:  # fmt: skip
    look({A: "nvidia", B: "nvidia"}, [A, B])
    matrix = (ROOT / "tests/fixtures/nvidia_smi/l40s-x2-interleaved/topo-m.txt").read_text()
    answers = module.run
    told = matrix.replace("0,2,4,6,8,10", affinity)
    monkeypatch.setattr(module, "run", lambda _time, *words: (told, "") if words[0] == "topo" else answers(5, *words))
    monkeypatch.setattr(module, "NODES", tmp_path / "nodes")
    for file, text in ((f"devices/{A}/local_cpulist", local), ("nodes/node0/cpulist", node)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{text}\n")
    found = module.look(5)
    assert found["gpus"][0]["cpus"] == cpus
    assert [link["kind"] for link in found["links"]] == ["NODE"]
