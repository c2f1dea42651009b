"""What a host can serve on: its GPUs as `devices`, known from the driver or, without one, from the bus. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from deploy_cli.init.hosts import Found
from deploy_cli.plan import capability

# PCI device id: product, memory in MiB as nvidia-smi tells it (the least of what was seen), compute capability.
BY_PCI_ID: dict[str, tuple[str, int, str]] = {
    "0x1db1": ("V100-SXM2-16GB", 16160, "7.0"),
    "0x1db4": ("V100-PCIE-16GB", 16160, "7.0"),
    "0x1db5": ("V100-SXM2-32GB", 32480, "7.0"),
    "0x1db6": ("V100-PCIE-32GB", 32480, "7.0"),
    "0x1eb8": ("T4", 15109, "7.5"),
    "0x20b0": ("A100-SXM4-40GB", 40536, "8.0"),
    "0x20f1": ("A100-PCIE-40GB", 40536, "8.0"),
    "0x20b2": ("A100-SXM4-80GB", 81251, "8.0"),
    "0x20b5": ("A100 80GB PCIe", 81251, "8.0"),
    "0x2230": ("RTX A6000", 48685, "8.6"),
    "0x2235": ("A40", 45634, "8.6"),
    "0x2236": ("A10", 22731, "8.6"),
    "0x2237": ("A10G", 22731, "8.6"),
    "0x26b1": ("RTX 6000 Ada Generation", 48685, "8.9"),
    "0x26b5": ("L40", 45634, "8.9"),
    "0x26b9": ("L40S", 45634, "8.9"),
    "0x27b8": ("L4", 22731, "8.9"),
    "0x2330": ("H100 80GB HBM3", 81079, "9.0"),
    "0x2331": ("H100 PCIe", 81079, "9.0"),
    "0x2335": ("H200", 143156, "9.0"),
}
GIB_PER_CPU_ENGINE = 4  # weights of a small model, vLLM itself, 1 GiB of KV cache
MOST_CPU_ENGINES = 4


@dataclass(frozen=True)
class Holdings:
    """`devices` of a host, the lines that say where they are known from, and what to warn of as (what, hint)."""

    devices: list[dict[str, Any]]
    lines: list[str]
    warnings: list[tuple[str, str]] = field(default_factory=list)


def has_gpus(host: Found) -> bool:
    """Whether a host has NVIDIA GPUs, working or not."""
    return bool(host.gpu.get("gpus") or host.gpu.get("pci"))


def before_turing(devices: Sequence[Mapping[str, Any]]) -> str:
    """Return the least compute capability below what CUDA 13 knows, or nothing where there is none."""
    told = {capability.number(text): text for d in devices if (text := str(d.get("compute_capability") or ""))}
    least = min((number for number in told if number), default=capability.CUDA_13_LEAST)
    return told[least] if least < capability.CUDA_13_LEAST else ""


def holdings(host: Found) -> Holdings:
    """Return what a host can serve on."""
    if not has_gpus(host):
        return _cpu(host)
    usable = [gpu for gpu in host.gpu.get("gpus") or [] if gpu.get("usable")]
    return _without_the_old(_told_by_driver(host, usable) if usable else _told_by_bus(host))


def _without_the_old(held: Holdings) -> Holdings:
    """Leave out what no release of vLLM has code for, where there is something better beside it."""

    def old(device: Mapping[str, Any]) -> bool:
        told = capability.number(str(device.get("compute_capability") or ""))
        return told is not None and told < capability.VLLM_LEAST

    kept = [device for device in held.devices if not old(device)]
    if not kept or len(kept) == len(held.devices):
        return held
    names = ", ".join(str(device.get("model") or "a GPU") for device in held.devices if old(device))
    warnings = [(f"{names} left out: no release of vLLM has code for it", "vLLM begins at compute capability 7.0")]
    if old(held.devices[0]) or any(old(a) and not old(b) for a, b in pairwise(held.devices)):
        hint = "hide it from the driver, or put it into a slot behind the others: the first GPUs of a host are used"
        warnings.append((f"{names} has a lower number than a GPU that is used", hint))
    return Holdings(kept, held.lines, [*held.warnings, *warnings])


def _cpu(host: Found) -> Holdings:
    memory = float(host.hardware.get("memory_gib") or 0)
    count = max(1, min(MOST_CPU_ENGINES, int(memory // GIB_PER_CPU_ENGINE) - 1))
    line = f"no NVIDIA GPU: engines on the CPU, about {GIB_PER_CPU_ENGINE} GiB of the {memory:g} GiB of memory for each"
    return Holdings([{"kind": "cpu", "count": count}], [line])


def _told_by_driver(host: Found, usable: list[Mapping[str, Any]]) -> Holdings:
    ids = {one.get("address"): str(one.get("device")).lower() for one in host.gpu.get("pci") or []}
    seats = []
    for gpu in usable:
        known = BY_PCI_ID.get(ids.get(gpu.get("pci"), ""))  # older drivers do not tell the compute capability
        capability = gpu.get("compute_capability") or (known[2] if known else None)
        seats.append(_device(str(gpu.get("name") or ""), gpu.get("memory_total_mib"), capability))
    lines = [
        f"GPU {gpu['index']}: {gpu.get('name')}, {gpu.get('memory_total_mib')} MiB, {gpu.get('uuid')}, "
        f"PCI {gpu.get('pci')}, NUMA node {gpu.get('numa_node')}"
        for gpu in usable
    ]
    warnings = [(str(one.get("what")), str(one.get("hint"))) for one in host.gpu.get("problems") or []]
    for gpu in usable:
        if gpu.get("mig") == "enabled":
            what = f"MIG is enabled on GPU {gpu['index']}, and deployctl uses GPUs whole"
            warnings.append((what, f"turn it off there: nvidia-smi -i {gpu['index']} -mig 0"))
    missing = len(host.gpu.get("pci") or []) - len(usable)
    if missing > 0:
        what = f"{missing} of {len(host.gpu['pci'])} GPUs cannot be used and are left out of `devices`"
        warnings.append((what, "repair them, then raise `count`"))
    return Holdings(_counted(seats), lines, warnings)


def _told_by_bus(host: Found) -> Holdings:
    on_bus = host.gpu.get("pci") or []
    answers = host.gpu.get("gpus") or []  # of the driver; it can use none of them
    seats, lines = [], []
    for one in on_bus:
        known = BY_PCI_ID.get(str(one.get("device")).lower())
        seats.append(_device(*known) if known else {"kind": "nvidia"})
        name = f"{known[0]} by its PCI id" if known else "a GPU whose PCI id is not known here"
        lines.append(f"{one.get('address')}: {name} ({one.get('device')}), NUMA node {one.get('numa_node')}")
    for gpu in answers if not on_bus else ():
        seats.append(_device(str(gpu.get("name") or ""), gpu.get("memory_total_mib"), gpu.get("compute_capability")))
        lines.append(f"GPU {gpu.get('index')}: {gpu.get('name')}, {gpu.get('memory_total_mib')} MiB")
    hint = "`deployctl up` installs the driver; `deployctl init --force` then reads names, memory and UUIDs from it"
    warnings = [("its GPUs are known from the bus alone: no driver answers", hint)]
    if answers:
        hint = "the warnings beside this one say why; repair them, and `deployctl init --force` reads them again"
        warnings = [(f"the driver answers, and none of its {len(answers)} GPUs can be used", hint)]
    warnings += [
        (str(one.get("what")), str(one.get("hint")))
        for one in host.gpu.get("problems") or []
        if one.get("code") not in ("no_nvidia_smi", "no_library", "driver_not_loaded")
    ]
    return Holdings(_counted(seats), lines, warnings)


def _device(name: str, mib: int | None, capability: str | None) -> dict[str, Any]:
    """Return an entry of `devices` without its count; what is not known is left out."""
    # Braces would be a template to Ansible: what a host says must never be run here.
    model = " ".join(re.sub(r"[{}%\x00-\x1f\x7f]", "", name).removeprefix("NVIDIA ").split())[:80]
    found: dict[str, Any] = {"kind": "nvidia"}
    if model:
        found["model"] = model
    if mib:
        found["memory_gib"] = math.floor(mib / 1024 * 100) / 100
    if re.fullmatch(r"\d{1,2}\.\d", str(capability)):
        found["compute_capability"] = str(capability)
    return found


def _counted(seats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join equal neighbours: the order is that of the indices, by which the planner gives them away."""
    return [{**seat, "count": len(list(equal))} for seat, equal in groupby(seats)]
