#!/usr/bin/python
"""Read the NVIDIA GPUs of a host into facts; whatever is wrong with them is a named problem."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils import host_programs, nvidia_smi
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: gpu_facts
short_description: The NVIDIA GPUs of a host as facts
description:
  - Reads C(nvidia-smi), C(/proc) and C(/sys) into C(ansible_facts.gpu) - driver versions, GPUs with UUID, memory,
    compute capability, MIG, NUMA node and processes, the links between them, and C(problems).
  - Never fails for what it finds.
options:
  timeout:
    description: Seconds for one call of nvidia-smi.
    type: int
    default: 30
author:
  - deployctl
"""

FIELDS = ["index", "uuid", "name", "memory.total", "memory.used", "pci.bus_id", "mig.mode.current", "compute_cap"]
DISPLAY, BRIDGE, VENDOR = ("0x0300", "0x0302"), "0x0680", "0x10de"
TIMEOUT = "timeout"
DEVICES, NODES = Path("/sys/bus/pci/devices"), Path("/sys/devices/system/node")


def run(timeout: int, *arguments: str) -> tuple[str, str]:
    """Output of nvidia-smi, both streams, and why there is none: `absent`, `timeout` or nothing."""
    try:
        return host_programs.ask(["nvidia-smi", *arguments], timeout, both=True)[1], ""
    except subprocess.TimeoutExpired:
        return "", TIMEOUT
    except OSError:
        return "", "absent"


def text(path: str) -> str:
    """A small file of the kernel; empty when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def bus() -> tuple[list[dict[str, Any]], bool]:
    """NVIDIA's GPUs on the PCI bus, and whether there is an NVSwitch."""
    found, switch = [], False
    for device in sorted(DEVICES.glob("*")):
        if text(f"{device}/vendor") != VENDOR:
            continue
        kind, node = text(f"{device}/class")[:6], text(f"{device}/numa_node")
        switch = switch or kind == BRIDGE
        if kind in DISPLAY:
            found.append({
                "address": device.name.lower(),
                "device": text(f"{device}/device"),
                "numa_node": int(node) if re.fullmatch(r"\d+", node) else None,
                "driver": (device / "driver").resolve().name if (device / "driver").exists() else None,
            })  # fmt: skip
    return found, switch


def kernel_module() -> tuple[str | None, bool | None]:
    """Version of the loaded module, and whether it is the open one."""
    told = text("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module(?: for \w+)?\s+(\d+\.\d+(?:\.\d+)?)", told)
    version = text("/sys/module/nvidia/version") or (found.group(1) if found else "")
    return version or None, ("Open Kernel Module" in told) if told else None


def library() -> str | None:
    """Version of the management library on disk; Debian keeps it in a folder of its own, behind links."""
    for pattern in ("lib/*/libnvidia-ml.so.1", "lib64/libnvidia-ml.so.1", "lib/libnvidia-ml.so.1"):
        for path in sorted(Path("/usr").glob(pattern)):
            found = re.search(r"\.so\.(\d+\.\d+(\.\d+)?)$", path.resolve().name)
            # A link may outlive what it led to.
            if found and path.exists():
                return found.group(1)
    return None


def gpus(timeout: int) -> dict[str, Any]:
    """Ask nvidia-smi in three ways, the fullest first; {driver, cuda, gpus, problems, hangs}.

    Once it did not answer in time it is not asked again: each call would hang as long, and leave a process behind.
    """
    told, why = run(timeout, "-q", "-x")
    found: dict[str, Any] = {"driver": None, "cuda": None, "gpus": [], "problems": [], "hangs": why == TIMEOUT}
    if why == "absent":
        found["problems"].append(
            nvidia_smi.problem("no_nvidia_smi", "nvidia-smi is not installed", "`deployctl up` installs the driver")
        )
        return found
    whole = nvidia_smi.from_xml(told)
    if whole is not None:
        found.update(whole)
        beside = re.sub(r"(?s)<nvidia_smi_log.*</nvidia_smi_log>", "", told)
        named = nvidia_smi.failure(beside)
        found["problems"] += ([named] if named else []) + nvidia_smi.warnings(beside)
        if found["gpus"]:
            _complete(timeout, found)
    else:
        shorter = "" if found["hangs"] else _shorter(timeout, found)
        named = nvidia_smi.failure(told) or nvidia_smi.failure(shorter)
        if named:
            found["problems"].append(named)
        elif found["hangs"]:
            found["problems"].append(_hang(timeout))
        elif not found["gpus"]:
            line = (told.strip().splitlines() or ["nothing"])[-1][:200]
            found["problems"].append(nvidia_smi.problem("unreadable", f"nvidia-smi said: {line}", "run it by hand"))
    return found


def _hang(timeout: int) -> dict[str, Any]:
    what = f"nvidia-smi did not answer within {timeout} s"
    return nvidia_smi.problem(TIMEOUT, what, "the driver hangs: see dmesg; a reboot may help")


def _queried(timeout: int, found: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """GPUs by --query-gpu, without the fields that this driver does not know; and all that was said."""
    fields, said = list(FIELDS), ""
    gpus: list[dict[str, Any]] = []
    while fields and not gpus:
        told, why = run(timeout, f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
        said += told
        found["hangs"] = why == TIMEOUT
        gpus = nvidia_smi.from_csv(told, fields)
        unknown = re.search(r'Field "([\w.]+)" is not a valid field', told)
        if why or not unknown or unknown.group(1) not in fields:
            break
        fields.remove(unknown.group(1))
    return gpus, said


def _complete(timeout: int, found: dict[str, Any]) -> None:
    """What the XML does not tell: the compute capability, and the number by which `topo -m` goes.

    The XML leaves a lost GPU out, and its place in it is then no such number.
    """
    asked = {one["uuid"]: one for one in _queried(timeout, found)[0] if one["uuid"]}
    if found["hangs"]:
        found["problems"].append(_hang(timeout))
    for one in found["gpus"]:
        if beside := asked.get(one["uuid"]):
            one["index"] = beside["index"]
            one["compute_capability"] = one["compute_capability"] or beside["compute_capability"]


def _shorter(timeout: int, found: dict[str, Any]) -> str:
    found["gpus"], said = _queried(timeout, found)
    if found["gpus"]:
        told, why = run(timeout, "--query-gpu=driver_version", "--format=csv,noheader")
        found["hangs"], version = why == TIMEOUT, re.match(r"\s*([\d.]+)(?=\s|$)", told)
        found["driver"] = version.group(1) if version else None
    elif not found["hangs"]:
        told, why = run(timeout, "-L")
        found["hangs"] = why == TIMEOUT
        said += told
        found["gpus"] = nvidia_smi.from_list(told)
    return said


def near(address: str, node: int | None) -> str:
    """The CPUs beside a GPU as the kernel lists them, else those of the NUMA node; empty where it says neither."""
    cpus = text(f"{DEVICES}/{address}/local_cpulist") if address else ""
    return cpus or ("" if node is None else text(f"{NODES}/node{node}/cpulist"))


def links(matrix: str, found: list[dict[str, Any]], on_bus: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Links between GPUs by UUID, of `nvidia-smi topo -m`; NUMA node and CPUs are written into the GPUs."""
    told = nvidia_smi.topology(matrix)
    nodes = {one["address"]: one["numa_node"] for one in on_bus}
    for one in found:
        node = nodes.get(one["pci"])
        one["numa_node"] = told["numa"].get(one["index"]) if node is None else node
        one["cpus"] = near(one["pci"], node) if one["pci"] in nodes else ""
        cpus = told["cpus"].get(one["index"], "")
        # nvidia-smi ends the list after about six parts and does not say so: 0,2,4,6,8,10 are the first of 64.
        one["cpus"] = one["cpus"] or ("" if cpus.count(",") > 4 else cpus) or near("", one["numa_node"]) or None
    uuids = {one["index"]: one["uuid"] for one in found if one["uuid"]}
    return [
        {"a": uuids[i], "b": uuids[j], "kind": kind}
        for (i, j), kind in sorted(told["links"].items())
        if i < j and i in uuids and j in uuids
    ]


def unknown(found: list[dict[str, Any]], on_bus: list[dict[str, Any]], told: set[str]) -> list[dict[str, Any]]:
    """GPUs on the bus that a driver which answers does not know: lost, or another driver's. told: known as such."""
    silent = [one for one in on_bus if one["address"] not in {gpu["pci"] for gpu in found} | told]
    problems = []
    for one in [one for one in silent if one["driver"] not in (None, "nvidia")]:
        what = f"a GPU on the bus ({one['address']}) is bound to {one['driver']}: the NVIDIA driver leaves it alone"
        hint = "nothing to do where that is meant, as for a virtual machine; else bind it to nvidia"
        problems.append(nvidia_smi.problem("gpu_elsewhere", what, hint, one["address"]))
    missing = [one["address"] for one in silent if one["driver"] in (None, "nvidia")]
    if missing and not found:
        what = f"the driver answers and knows no GPU; on the bus: {', '.join(missing)}"
        hint = "see `lspci -nnk -d 10de:` and dmesg: does this driver support them?"
        return [*problems, nvidia_smi.problem("no_gpu", what, hint)]
    for address in missing:
        what = f"a GPU on the bus ({address}) is not known to the driver"
        problems.append(nvidia_smi.problem("gpu_lost", what, nvidia_smi.HINTS["gpu_lost"], address))
    return problems


def look(timeout: int) -> dict[str, Any]:
    """Everything, as the facts have it."""
    on_bus, switch = bus()
    module, opened = kernel_module()
    nouveau = Path("/sys/module/nouveau").is_dir()
    told = gpus(timeout)
    found, problems = told["gpus"], told["problems"]
    matrix = run(timeout, "topo", "-m")[0] if found and not told["hangs"] else ""
    connections = links(matrix, found, on_bus)
    problems += nvidia_smi.judged(found)
    # Only where the driver answers at all: without it no GPU does, and that is told already. GPUs of `nvidia-smi -L` do
    # not tell their place on the bus.
    if all(one["pci"] for one in found) and (found or not problems):
        problems += unknown(found, on_bus, {problem["gpu"] for problem in problems})
    if nouveau:
        what, hint = "the nouveau driver is loaded", "`deployctl up` turns it off; a reboot is needed"
        problems.append(nvidia_smi.problem("nouveau_loaded", what, hint))
    disk = library()
    if module and disk and module != disk and not any(p["code"] == "version_mismatch" for p in problems):
        what = f"library {disk} and loaded kernel module {module} are of different versions"
        problems.append(nvidia_smi.problem("version_mismatch", what, nvidia_smi.HINTS["version_mismatch"]))
    if not found and not on_bus and not problems:
        problems.append(nvidia_smi.problem("no_gpu", "there is no NVIDIA GPU on the bus", "see `lspci -d 10de:`"))
    return {
        "driver": {
            "version": told["driver"],
            "cuda": told["cuda"],
            "module": module,
            "library": disk,
            "open": opened,
        },
        "nouveau": nouveau,
        "nvswitch": switch,
        "pci": on_bus,
        "gpus": found,
        "links": connections,
        "problems": problems,
    }


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 30}}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts={"gpu": look(module.params["timeout"])})


if __name__ == "__main__":
    main()
