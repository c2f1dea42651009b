"""The rules about GPUs: Secure Boot, driver, holds, toolkit, CDI, and a container that sees every GPU."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from deploy_cli.doctor.lines import State
from deploy_cli.doctor.space import Teller
from deploy_cli.plan import hardware

UP_DOES = "`deployctl up` installs it"
DRIVER = re.compile(r"(lib)?(nvidia|cuda)")
# Problems of gpu_facts that stand on a host before `up` has been there and that it puts right.
BEFORE_UP = {"no_nvidia_smi", "no_library", "nouveau_loaded"}
# Not right, and no reason to keep `up` away: it may be what helps, or the GPU is none that `up` would use. Where one of
# these is planned, that it is not there is told by itself.
HARMLESS = {
    "unreadable",
    "driver_not_loaded",
    "gpu_ailing",
    "gpu_elsewhere",
    "gpu_unified",
    "fabric_not_ready",
    "gpu_needs_reset",
}
# Nothing that somebody would have to put right.
NOT_OURS = {"gpu_elsewhere", "gpu_unified"}
# What the role nvidia_driver puts right where it may: by a reboot, or by another driver and a reboot.
REPAIRED = {"version_mismatch"}
# Where NVIDIA's own repository begins, as the role nvidia_driver has it: {(system, version): branch}.
FIRST = {("debian", "13"): 590}
REBOOTS = "`deployctl up` reboots this host for it, and with --no-reboot ends there"


def judge(told: Teller, look: Mapping[str, Any], gpu: Mapping[str, Any] | None, needs: Mapping[str, Any]) -> None:
    """Say how driver, packages, toolkit and devices are, on a host whose GPUs the plan uses."""
    if gpu is None:
        told.say("gpu", "problem", "the GPUs could not be looked at", "-v shows why; does python3 run on this host?")
        gpu = {}
    driver = gpu.get("driver") or {}
    # A driver that does not answer knows no GPU: what is missing then is not the GPUs.
    installed = bool(driver.get("version"))
    _secure_boot(told, look, needs, loaded=bool(driver.get("module")))
    _driver(told, gpu, needs)
    _repository(told, look, driver, needs["driver"])
    _gpus(told, gpu, needs, installed=installed)
    _packages(told, look)
    _toolkit(told, look, needs, installed=installed)
    _container(told, look, gpu)


def _secure_boot(told: Teller, look: Mapping[str, Any], needs: Mapping[str, Any], *, loaded: bool) -> None:
    if look["secure_boot"] != "enabled":
        return  # told with the other checks
    if loaded:
        hint = "a driver that is built here (DKMS) must be signed with an enrolled key before the next update"
        told.say("secure boot", "hint", "enabled, and the kernel took the loaded driver", hint)
        return
    if look.get("boot_key") or needs["driver"]["prebuilt"]:
        told.say("secure boot", "ok", "enabled, and the driver to come is signed with a key that it knows")
        return
    hint = (
        "the kernel refuses a driver built here (DKMS): enrol a key at the console (mokutil --import), take modules "
        "that the distribution has signed (nvidia_driver_prebuilt), or switch Secure Boot off"
    )
    told.say("secure boot", "problem", "enabled, and no driver is loaded", hint, blocks=True)


def _driver(told: Teller, gpu: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    manage = needs["driver"]["manage"]
    driver, problems = gpu.get("driver") or {}, gpu.get("problems") or []
    general = [problem for problem in problems if not problem.get("gpu") and problem["code"] != "no_gpu"]
    for problem in general:
        code = problem["code"]
        state: State = "hint" if code in BEFORE_UP else "problem"
        hint = f"{UP_DOES}" if code in ("no_nvidia_smi", "no_library") else str(problem.get("hint") or "")
        repaired = manage and code in REPAIRED
        blocks = state == "problem" and code not in HARMLESS and not repaired
        told.say("driver", state, str(problem["what"]), REBOOTS if repaired else hint, blocks=blocks)
    if not general and driver.get("version"):
        kind = {True: "open modules", False: "proprietary modules", None: "modules of unknown kind"}[driver.get("open")]
        told.say("driver", "ok", f"{driver['version']}, CUDA {driver.get('cuda') or 'unknown'}, {kind}")
    numbers = {name: driver.get(name) for name in ("module", "library") if driver.get(name)}
    if len(set(numbers.values())) > 1 and not any(problem["code"] == "version_mismatch" for problem in problems):
        what = ", ".join(f"{name} {number}" for name, number in numbers.items())
        hint = REBOOTS if manage else "reboot this host"
        told.say("driver", "problem", f"{what}: no new container will start", hint, blocks=not manage)
    _age(told, str(driver.get("version") or driver.get("library") or ""), needs["driver"])


def _age(told: Teller, version: str, wanted: Mapping[str, Any]) -> None:
    """Say whether the driver is too old for the CUDA of the images."""
    branch = int(found.group()) if (found := re.match(r"\d+", version)) else 0
    if not branch or branch >= wanted["branch_min"]:
        return
    what = f"branch {branch} is too old for the CUDA of the images, which needs {wanted['branch_min']}"
    helped = wanted["manage"] and wanted["branch"] >= wanted["branch_min"]
    hint = f"`deployctl up` installs branch {wanted['branch']}" if helped else "install a newer driver"
    told.say("driver", "problem", what, hint, blocks=not helped)


def _repository(told: Teller, look: Mapping[str, Any], driver: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Say where the driver that `up` would install is not to be had."""
    system = look["os"] or {}
    first = FIRST.get((system.get("id", ""), system.get("version", "")), 0)
    there = str(driver.get("version") or driver.get("library") or driver.get("module") or "")
    to_come = wanted["manage"] and wanted["public"] and not there.startswith(f"{wanted['branch']}.")
    if to_come and wanted["branch"] < first:
        what = f"NVIDIA's repository of this system begins with branch {first} and has no {wanted['branch']}"
        hint = (
            "nvidia_driver_branch: 595, or a mirror that has it (nvidia_driver_repository_url), or Ubuntu or Debian 12"
        )
        told.say("driver", "problem", what, hint, blocks=True)


def _gpus(told: Teller, gpu: Mapping[str, Any], needs: Mapping[str, Any], *, installed: bool) -> None:
    for problem in gpu.get("problems") or []:
        if problem.get("gpu") or problem["code"] == "no_gpu":
            what = f"{problem['gpu']}: {problem['what']}" if problem.get("gpu") else str(problem["what"])
            blocks = problem["code"] not in HARMLESS
            state: State = "hint" if problem["code"] in NOT_OURS else "problem"
            told.say("gpu", state, what, str(problem.get("hint") or ""), blocks=blocks)
    usable = [found for found in gpu.get("gpus") or [] if found.get("usable")]
    names = {str(found["index"]) for found in usable} | {str(found["uuid"]) for found in usable}
    seats = [entry for entry in needs["declared"] for _ in range(entry["count"])]
    for found, entry in zip(usable, seats, strict=False):
        for what, hint in hardware.differences("this host", found, entry):
            told.say("gpus", "problem", what, hint, blocks=True)
    missing = [device for device in needs["devices"] if device not in names]
    models = sorted({str(found["name"]) for found in usable})
    if usable:
        told.say("gpus", "ok", f"{len(usable)} usable: {', '.join(models)}")
    if missing and installed:
        hint = "correct `devices` in the inventory, or look for the GPU: lspci, dmesg"
        told.say("gpus", "problem", f"planned and not there: {', '.join(missing)}", hint, blocks=True)
    elif missing and "pci" in gpu:
        found = len(gpu["pci"])
        if found:
            told.say("gpus", "hint", f"{found} on the bus", "they are known once the driver is there")
        else:
            hint = "correct `devices` in the inventory, or look for the GPU: lspci -d 10de:"
            told.say("gpus", "problem", "no NVIDIA GPU is on the bus", hint, blocks=True)


def _packages(told: Teller, look: Mapping[str, Any]) -> None:
    packages = look["packages"] or {}
    installed = sorted(name for name in packages.get("nvidia") or {} if DRIVER.match(name))
    if not installed:
        told.say("holds", "skipped", "no driver package is installed")
        return
    held = packages.get("held") or []
    loose = [name for name in installed if not any(fnmatch.fnmatchcase(name, pattern) for pattern in held)]
    unlisted = [name for name in loose if not _matches(name, packages.get("blacklist") or [])]
    if not loose:
        told.say("holds", "ok", f"{len(installed)} driver packages are held")
    elif packages.get("enabled") and unlisted:
        hint = "an update under a running driver breaks the next container start; `deployctl up` holds them"
        told.say("holds", "problem", f"{len(unlisted)} driver packages update by themselves", hint)
    else:
        told.say("holds", "hint", f"{len(loose)} of {len(installed)} driver packages are not held", "`up` holds them")


def _matches(name: str, patterns: list[str]) -> bool:
    """Say whether unattended-upgrades leaves a package alone; its patterns are regular expressions from the start."""
    for pattern in patterns:
        try:
            if re.match(pattern, name):
                return True
        except re.error:
            continue
    return False


def _toolkit(told: Teller, look: Mapping[str, Any], needs: Mapping[str, Any], *, installed: bool) -> None:
    if not look["toolkit"]:
        told.say("toolkit", "hint", "the NVIDIA container toolkit is not there", UP_DOES)
    else:
        told.say("toolkit", "ok", str(look["toolkit"]))
    devices = [name for name in look["cdi"] or [] if name.startswith("nvidia.com/gpu=")]
    known = {name.split("=", 1)[1] for name in devices}
    missing = [device for device in needs["devices"] if device not in known]
    if not devices:
        told.say("cdi", "hint", "no CDI devices are declared", "`deployctl up` declares them")
    elif missing and installed and needs["gpu_driver"] == "cdi":
        hint = "nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml, or `deployctl up`"
        told.say("cdi", "problem", f"not among the CDI devices: {', '.join(missing)}", hint)
    else:
        told.say("cdi", "ok", f"{len(devices)} devices: {', '.join(sorted(known))}")


def _container(told: Teller, look: Mapping[str, Any], gpu: Mapping[str, Any]) -> None:
    answer = look["gpu_container"] or {"state": "skipped", "why": "it was not tried"}
    # A GPU that is cut into parts (MIG) is no device as a whole.
    host = {str(found["uuid"]) for found in gpu.get("gpus") or [] if found.get("mig") != "enabled"}
    if answer["state"] == "skipped":
        told.say("gpu container", "skipped", str(answer["why"]))
    elif answer["state"] == "failed":
        hint = "see toolkit, cdi and driver above"
        told.say("gpu container", "problem", f"a container gets no GPU: {answer['why']}", hint)
    elif host - set(answer["uuids"]):
        unseen = ", ".join(sorted(host - set(answer["uuids"])))
        told.say("gpu container", "problem", f"a container does not see {unseen}", "see cdi above")
    else:
        told.say("gpu container", "ok", f"sees {len(answer['uuids'])} GPUs")
