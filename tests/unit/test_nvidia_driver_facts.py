"""The driver's role, on every system that it knows: packages and repositories of its tables, refusals, what is left.

Debian's own packages are really installed in molecule/nvidia_driver; Ubuntu, the RHEL family and NVIDIA's repository
are judged here by their tables.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import loaded

ROLE = Path(__file__).resolve().parents[2] / "roles/nvidia_driver"
SYSTEMS: list[str] = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__nvidia_driver_systems"]
TABLES: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((ROLE / f"vars/{name}.yml").read_text())["__nvidia_driver_os"] for name in SYSTEMS
}


role = loaded(ROLE / "filter_plugins/nvidia_driver.py")

L40S, V100, B200, K80, GH200 = "0x26b9", "0x1db4", "0x2901", "0x102d", "0x2342"
STATE: dict[str, Any] = {
    "packages": {}, "unfinished": [], "held": [], "held_by_us": [], "updates": [], "kernel": "6.12.94",
    "headers": False, "module": None, "dkms": [], "secure_boot": "disabled", "key_enrolled": False, "nvswitch": False,
    "stream": "",
}  # fmt: skip
GPU: dict[str, Any] = {
    "driver": {"version": None, "module": None, "library": None, "open": None},
    "nouveau": False, "pci": [{"address": "0000:01:00.0", "device": L40S}], "gpus": [], "problems": [],
}  # fmt: skip
WANTED: dict[str, Any] = {
    "manage": True, "branch": 580, "branch_min": 580, "modules": "auto", "source": "vendor", "prebuilt": False,
    "packages": [], "headers": True, "devices": [], "system": "Debian 13.1", "architecture": "x86_64",
    "repository": "https://repository.example.org", "keyring": "", "public": False,
}  # fmt: skip
THERE = {"packages": {"nvidia-open": "580.95.05-1"}, "module": "580.95.05", "held_by_us": ["nvidia-open"]}
RUNS = {"driver": {"version": "580.95.05", "module": "580.95.05", "library": "580.95.05", "open": True}}


def plan(system: str = "Debian13", gpu: dict[str, Any] | None = None, state: Any = None, **wanted: Any) -> Any:
    table = TABLES.get(system, {})
    return role.nvidia_driver_plan({**STATE, **(state or {})}, {**GPU, **(gpu or {})}, table, {**WANTED, **wanted})


def shape(value: Any) -> Any:
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else type(value).__name__


def told(found: Any) -> str:
    return "\n".join(f"{one['what']} / {one['hint']}" for one in found["problems"])


def test_every_system_has_a_table_and_every_table_the_same_keys() -> None:
    assert {file.stem for file in (ROLE / "vars").glob("*.yml")} == {"main", *SYSTEMS}
    for system in SYSTEMS[1:]:
        assert shape(TABLES[system]) == shape(TABLES[SYSTEMS[0]]), system


def test_every_table_is_filled_in_whole() -> None:
    for system in SYSTEMS:
        for source in ("vendor", "distribution"):
            for modules in ("open", "proprietary"):
                for branch in (580, 595):
                    found = plan(system, state={"nvswitch": True}, source=source, modules=modules, branch=branch)
                    assert "{" not in str({key: found[key] for key in found if key != "problems"}).replace("{'", "")


@pytest.mark.parametrize(
    ("system", "folder", "file"),
    [
        ("Ubuntu22", "ubuntu2204/x86_64", "/etc/apt/sources.list.d/cuda-ubuntu2204-x86_64.list"),
        ("Ubuntu24", "ubuntu2404/x86_64", "/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list"),
        ("Debian12", "debian12/x86_64", "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"),
        ("Debian13", "debian13/x86_64", "/etc/apt/sources.list.d/cuda-debian13-x86_64.list"),
        ("RedHat9", "rhel9/x86_64", "cuda-rhel9"),
        ("RedHat10", "rhel10/x86_64", "cuda-rhel10"),
    ],
)
def test_repository_of_the_vendor(system: str, folder: str, file: str) -> None:
    found = plan(system)
    assert found["problems"] == [] and found["install"]
    assert (found["repository"]["folder"], found["repository"]["file"]) == (folder, file)
    keys = {"RedHat9": "D42D0685.pub", "RedHat10": "CDF6BA43.pub"}
    assert found["repository"]["keyring"] == keys.get(system, "cuda-keyring_1.1-1_all.deb")
    assert plan(system, architecture="aarch64")["repository"]["folder"] == folder.replace("x86_64", "sbsa")


@pytest.mark.parametrize("system", ["Ubuntu22", "Ubuntu24", "Debian12", "Debian13"])
@pytest.mark.parametrize("branch", [580, 595])
def test_apt_gets_the_pinning_package_and_names_without_a_branch(system: str, branch: int) -> None:
    found = plan(system, branch=branch)
    assert found["pin"] == [f"nvidia-driver-pinning-{branch}"]
    assert found["packages"][0] == "nvidia-open"
    assert plan(system, branch=branch, modules="proprietary")["packages"][0] == "cuda-drivers"
    assert not [name for name in found["packages"] if str(branch) in name], "suffixed names end at 580"
    assert found["headers"] == ["linux-headers-6.12.94"]


def test_the_rhel_family_locks_the_branch_before_the_driver() -> None:
    nine, ten = plan("RedHat9"), plan("RedHat10")
    assert (nine["stream"], nine["lock"]) == ("580-open", [])
    assert plan("RedHat9", modules="proprietary")["stream"] == "580-dkms"
    assert (ten["stream"], ten["lock"]) == ("", ["*nvidia*580*", "cuda-drivers*580*"])
    for found in (nine, ten):
        assert found["packages"] == ["nvidia-open"] and found["pin"] == []
        assert found["headers"] == ["kernel-devel-6.12.94"]
        assert "dkms" in found["before"] and "python3-dnf-plugin-versionlock" in found["before"]


def test_packages_of_the_distributions() -> None:
    ubuntu = plan("Ubuntu24", source="distribution")
    assert ubuntu["packages"] == ["nvidia-headless-580-server-open", "nvidia-utils-580-server"]
    signed = plan("Ubuntu24", source="distribution", prebuilt=True, state={"secure_boot": "enabled"})
    # The first brings those of kernels to come, the second those of the running one.
    modules = "linux-modules-nvidia-580-server-open"
    assert signed["packages"][:2] == [f"{modules}-generic", f"{modules}-6.12.94"]
    assert signed["problems"] == [] and signed["headers"] == [], "nothing is built here, so no key is needed"
    debian = plan("Debian13", source="distribution", branch=550, branch_min=550)
    assert "nvidia-open-kernel-dkms" in debian["packages"] and "nvidia-smi" in debian["packages"]
    assert debian["repository"]["components"] == ["contrib", "non-free", "non-free-firmware"]
    assert "no driver of branch 580" in told(plan("RedHat9", source="distribution"))


@pytest.mark.parametrize(
    ("system", "source", "branch", "name"),
    [
        ("Ubuntu22", "vendor", 575, "nvidia-fabricmanager-575"),
        ("Ubuntu22", "vendor", 580, "nvidia-fabricmanager"),
        ("Ubuntu24", "vendor", 580, "nvidia-fabricmanager"),
        ("Ubuntu24", "vendor", 595, "nvidia-fabricmanager"),
        ("Ubuntu24", "distribution", 580, "nvidia-fabricmanager-580"),
        ("Debian12", "vendor", 570, "nvidia-fabricmanager-570"),
        ("Debian12", "vendor", 580, "nvidia-fabricmanager"),
        ("Debian13", "vendor", 580, "nvidia-fabricmanager"),
        ("RedHat9", "vendor", 580, "nvidia-fabricmanager"),
    ],
)
def test_fabric_manager_only_beside_an_nvswitch(system: str, source: str, branch: int, name: str) -> None:
    assert plan(system, branch=branch, source=source)["fabric_manager"] == ""
    assert plan(system, branch=branch, source=source, state={"nvswitch": True})["fabric_manager"] == name


@pytest.mark.parametrize(
    ("system", "branch", "there"),
    [("Debian13", 580, False), ("Debian13", 595, True), ("Debian12", 580, True), ("Ubuntu24", 580, True)],
)
def test_a_branch_that_the_vendors_own_repository_does_not_have(system: str, branch: int, there: bool) -> None:
    found = plan(system, branch=branch, public=True)
    assert (found["problems"] == []) == there
    assert there or ("begins with branch 590" in told(found) and "595" in told(found) and "Debian 12" in told(found))
    packed = role.nvidia_driver_packed({system: TABLES[system]}, {**WANTED, "branch": branch, "public": True}, [])
    assert bool(packed["sets"]) == there == (not packed["problems"])
    assert plan(system, branch=branch)["problems"] == [], "a mirror may have it"
    assert plan(system, RUNS, THERE, branch=580, public=True)["problems"] == [], "it is there already"
    assert plan("Debian13", source="distribution", branch=550, branch_min=0, public=True)["problems"] == []


@pytest.mark.parametrize(
    ("device", "declared", "asked", "modules"),
    [
        (L40S, None, "auto", "open"),
        (V100, None, "auto", "proprietary"),
        (B200, None, "auto", "open"),
        (L40S, "7.0", "auto", "open"),  # what is seen counts more than what is declared
        (L40S, None, "proprietary", "proprietary"),
    ],
)
def test_kind_of_the_modules(device: str, declared: str | None, asked: str, modules: str) -> None:
    devices = [{"kind": "nvidia", "compute_capability": declared}] if declared else []
    found = plan(gpu={"pci": [{"device": device}]}, modules=asked, devices=devices)
    assert (found["modules"], found["problems"]) == (modules, [])


@pytest.mark.parametrize(
    ("devices", "wanted", "words"),
    [
        ([V100], {"modules": "open"}, "the open modules do not know it"),
        ([V100], {"branch": 595}, "branch 595 has no support"),
        ([B200], {"modules": "proprietary"}, "only the open modules know it"),
        ([GH200], {"modules": "proprietary"}, "only the open modules know it"),
        ([V100, B200], {}, "no driver knows it together"),
        ([K80], {}, "older than Maxwell"),
    ],
)
def test_gpus_and_modules_that_do_not_fit(devices: list[str], wanted: dict[str, Any], words: str) -> None:
    assert words in told(plan(gpu={"pci": [{"device": device} for device in devices]}, **wanted))


def test_mixed_old_and_new_gpus_get_the_proprietary_modules() -> None:
    found = plan(gpu={"pci": [{"device": L40S}, {"device": V100}]})
    assert (found["modules"], found["problems"]) == ("proprietary", [])


def test_a_driver_that_works_is_left_alone() -> None:
    found = plan(gpu=RUNS, state={**THERE, "packages": {}})
    assert found["healthy"] and not found["install"] and not found["reboot"], "whoever has installed it, and however"
    assert plan(gpu=RUNS, state=THERE)["problems"] == []
    assert plan(gpu=RUNS, state={**THERE, "secure_boot": "enabled"})["problems"] == [], "the kernel took it"


def test_another_branch_is_installed_and_needs_a_reboot() -> None:
    found = plan(gpu=RUNS, state=THERE, branch=595)
    assert found["install"] and found["reboot"] and found["problems"] == []
    assert found["state"] == "latest", "to a package manager, what is there of another branch is present"
    assert plan()["state"] == "present"


def test_no_way_back_to_an_older_branch() -> None:
    newer = deepcopy(RUNS)
    newer["driver"].update(dict.fromkeys(("version", "module", "library"), "595.10.01"))
    assert "of a newer branch than 580" in told(plan(gpu=newer, state={**THERE, "module": "595.10.01"}))


def test_packages_that_deployctl_holds_itself_are_no_obstacle() -> None:
    held = {**THERE, "held": ["nvidia-open"]}
    assert plan(gpu=RUNS, state=held, branch=595)["problems"] == []
    assert "not by deployctl" in told(plan(gpu=RUNS, state={**held, "held_by_us": []}, branch=595))


def test_a_module_that_was_not_built_is_built_not_installed() -> None:
    gpu = {**GPU, "driver": {**GPU["driver"], "library": "580.95.05"}}
    there = {"packages": dict.fromkeys(["nvidia-open", "nvidia-persistenced"], "580.95.05-1")}
    found = plan(gpu=gpu, state=there)
    assert not found["healthy"] and not found["install"], "the packages are all there"
    assert plan(gpu=gpu, state={**there, "module": "580.65.06"})["healthy"] is False
    assert plan(gpu=gpu)["install"], "of the packages none is"


def test_open_modules_on_an_old_gpu_are_replaced() -> None:
    found = plan(gpu={**RUNS, "pci": [{"device": V100}]}, state=THERE)
    assert found["install"] and found["packages"][0] == "cuda-drivers"


def test_everything_is_told_at_once() -> None:
    state = {**THERE, "held": ["nvidia-*"], "held_by_us": [], "secure_boot": "enabled"}
    found = plan("Debian13", {**RUNS, "pci": []}, state, branch=535, prebuilt=True)
    for words in ("no NVIDIA GPU on the bus", "too old for the CUDA", "held, and not by deployctl"):
        assert words in told(found)
    assert "have no signed, ready-built modules" in told(found)
    assert len(found["problems"]) == 5
    assert all(one["hint"] for one in found["problems"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "riscv64"}, "there is no driver for riscv64"),
        ({"manage": False}, "there is no driver, and nvidia_driver_manage is false"),
        ({"state": {"secure_boot": "enabled"}}, "Secure Boot is on"),
        ({"gpu": RUNS, "state": {"module": "580.95.05"}, "branch": 595}, "past the package manager"),
        ({"system": "Fedora44"}, "not a system that this role knows"),
    ],
)
def test_refusals(changes: dict[str, Any], words: str) -> None:
    found = plan(**changes)
    assert words in told(found) and len(found["problems"]) == 1


def test_an_enrolled_key_lets_a_built_module_through_secure_boot() -> None:
    assert plan(state={"secure_boot": "enabled", "key_enrolled": True})["problems"] == []


def test_a_driver_of_the_user_is_judged_and_nothing_else() -> None:
    found = plan("Fedora44", RUNS, {**THERE, "held": ["nvidia-*"]}, manage=False)
    assert found["problems"] == [] and not found["install"]
    old = deepcopy(RUNS)
    old["driver"].update(library="550.163.01", module="550.163.01")
    assert "branch 550 is too old" in told(plan(gpu=old, state={"module": "550.163.01"}, manage=False))


def test_what_is_left_after_the_packages() -> None:
    dkms = {"module": "nvidia", "version": "580.95.05", "kernel": "", "state": "added", "log": "/x/make.log"}
    other = {**dkms, "kernel": "6.1.0", "version": "535"}
    left = role.nvidia_driver_outcome({**STATE, "dkms": [dkms, other]}, GPU)
    assert (left["build"], left["log"], left["load"], left["reboot"]) == (
        ["nvidia/580.95.05"],
        "/x/make.log",
        False,
        "",
    )
    built = {**STATE, "module": "580.95.05", "dkms": [dkms]}
    left = role.nvidia_driver_outcome(built, GPU)
    assert (left["build"], left["log"], left["load"], left["reboot"]) == ([], "", True, "")
    assert role.nvidia_driver_outcome(built, {**GPU, **RUNS}) == {"build": [], "log": "", "load": False, "reboot": ""}
    older = {**GPU, "driver": {**RUNS["driver"], "module": "570.1.1"}}
    assert "570.1.1, installed is 580.95.05" in role.nvidia_driver_outcome(built, older)["reboot"]
    held_up = role.nvidia_driver_outcome(built, {**GPU, "nouveau": True})
    assert "nouveau" in held_up["reboot"] and not held_up["load"]


def test_what_broke_is_named_by_its_log() -> None:
    state = {**STATE, "headers": True}
    assert "/x/make.log" in role.nvidia_driver_broken(state, {"log": "/x/make.log"}, "rc 100", "Driver")
    assert "headers of the running kernel 6.12.94" in role.nvidia_driver_broken(STATE, {"log": ""}, "none", "Driver")
    assert role.nvidia_driver_broken(state, {"log": ""}, "no such package", "Driver").endswith("no such package")
    pin = "No package matching 'nvidia-driver-pinning-580' is available"
    assert "has no driver of this branch" in role.nvidia_driver_broken(state, {"log": ""}, pin, "Branch is pinned")


def test_packages_that_nothing_holds() -> None:
    state = {**STATE, "packages": {"nvidia-open": "1", "libcuda1": "1"}, "held": ["nvidia-*"]}
    assert role.nvidia_driver_loose(state) == ["libcuda1"]


def test_a_locked_branch_still_refuses_what_cannot_go_back() -> None:
    newer = {"packages": {"nvidia-open": "595.10-1"}, "module": "595.10"}
    runs = {"driver": {"version": "595.10", "module": "595.10", "library": "595.10", "open": True}}
    assert "newer branch than 580" in told(plan("RedHat10", gpu=runs, state=newer))
    past = {"driver": {"version": "570.10", "module": "570.10", "library": "570.10", "open": True}}
    assert "past the package manager" in told(plan("RedHat10", gpu=past, state={"module": "570.10"}))


@pytest.mark.parametrize(
    ("device", "opened", "install"), [(V100, True, True), (V100, False, False), (B200, False, True)]
)
def test_a_module_on_disk_that_does_not_know_the_gpu_is_replaced(device: str, opened: bool, install: bool) -> None:
    """It does not load, so that nothing tells of what is loaded."""
    driver = {"version": None, "module": None, "library": "580.95.05", "open": None}
    silent: dict[str, Any] = {"driver": driver, "pci": [{"address": "0000:01:00.0", "device": device}]}
    names = {"cuda-drivers": "1", "nvidia-open": "1", "nvidia-persistenced": "1"}
    found = plan(gpu=silent, state={**THERE, "packages": names, "open": opened})
    assert found["install"] is install


def test_another_kind_of_module_needs_a_reboot() -> None:
    switched = {**THERE, "open": False}
    assert (
        "running module is the open one" in role.nvidia_driver_outcome({**STATE, **switched}, {**GPU, **RUNS})["reboot"]
    )
    assert plan(gpu=RUNS, state=switched, modules="proprietary")["reboot"]
    assert not role.nvidia_driver_outcome({**STATE, **THERE, "open": True}, {**GPU, **RUNS})["reboot"]


def test_how_a_key_is_enrolled_is_said_for_the_system() -> None:
    locked = {"secure_boot": "enabled"}
    ubuntu = {**WANTED, "system": "Ubuntu 24.04"}
    assert "generate_mok" in told(plan(state=locked))
    assert "MOK.der" in told(role.nvidia_driver_plan({**STATE, **locked}, GPU, TABLES["Ubuntu24"], ubuntu))
