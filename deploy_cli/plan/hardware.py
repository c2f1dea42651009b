"""The GPUs that a host really has (what the module gpu_facts read) against what the inventory declares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy_cli.plan.findings import Findings
from deploy_cli.plan.shapes import Device, SiteInput

MEMORY_TOLERANCE = 0.03
_RANKS = {"PIX": 50, "PXB": 40, "PHB": 30, "NODE": 20, "SYS": 10}
"""How well two GPUs are connected, as `nvidia-smi topo -m` words it; NVLinks rank above all, by their number."""


def devices(site: SiteInput, host: str, declared: Sequence[Mapping[str, Any]], out: Findings) -> list[Device]:
    """Return the host's NVIDIA devices as they are, in the order of their indices; what differs becomes a problem."""
    facts = site.gpus[host]
    wanted = [entry for entry in declared if entry["kind"] == "nvidia"]
    count = sum(entry["count"] for entry in wanted)
    good = [gpu for gpu in facts.get("gpus", []) if gpu.get("usable")]
    if len(good) < count:
        why = "; ".join(dict.fromkeys(str(p.get("what")) for p in facts.get("problems", [])))
        what = f"host {host} declares {count} GPUs, and {len(good)} can be used" + (f": {why}" if why else "")
        hint = "repair the host, or lower `count`: instances that run are not moved while this stands"
        out.add(host, ("devices",), what, hint)
    elif len(good) > count:
        what = f"host {host} declares {count} GPUs and has {len(good)}: the last ones are not used"
        out.add(host, ("devices",), what, "raise `count` to use them", "warning")
    seats = [entry for entry in wanted for _ in range(entry["count"])]
    for gpu, entry in zip(good, seats, strict=False):
        for what, hint in differences(host, gpu, entry):
            out.add(host, ("devices",), what, hint)
    return [_device(host, gpu, entry) for gpu, entry in zip(good, seats, strict=False)]


def differences(host: str, gpu: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What forbids to use a GPU as what the inventory declares, each with a hint."""
    label = f"GPU {gpu['index']} of {host}"
    model, memory = str(entry.get("model", "")), entry.get("memory_gib")
    if gpu.get("mig") == "enabled":
        hint = f"turn it off: nvidia-smi -i {gpu['index']} -mig 0"
        yield f"MIG is enabled on {label}, and it is to be used whole", hint
    if model and not _named(model, str(gpu.get("name"))):
        yield f"{label} is a {gpu.get('name')}, declared is `{model}`", "correct `model` in `devices`"
    found = (gpu.get("memory_total_mib") or 0) / 1024
    if memory and found < float(memory) * (1 - MEMORY_TOLERANCE):
        yield (
            f"{label} has {found:.2f} GiB of memory, declared are {float(memory):g}",
            "correct `memory_gib` in `devices`",
        )


def _named(model: str, name: str) -> bool:
    """Whether a GPU's full name holds the declared one as whole words, however these are joined: an L40S is no L4.

    A generation or an amount of memory may be left open: A100-SXM4-40GB is an A100-SXM, and an A100-SXM4-40.
    """
    wanted = "".join(re.findall(r"[a-z0-9]+", model.lower()))
    words = re.findall(r"[a-z0-9]+", name.lower())
    joined = ["".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    rest = r"\d+" if wanted[-1:].isalpha() else "gb"
    return any(re.fullmatch(re.escape(wanted) + f"({rest})?", one) for one in joined)


def _device(host: str, gpu: Mapping[str, Any], entry: Mapping[str, Any]) -> Device:
    memory = gpu.get("memory_total_mib")
    return Device(
        host,
        "nvidia",
        int(gpu["index"]),
        # What is really there: unlike GPUs are no set for one instance.
        str(gpu.get("name") or entry.get("model", "")),
        memory / 1024 if memory else entry.get("memory_gib"),
        uuid=str(gpu["uuid"]),
        numa_node=gpu.get("numa_node"),
        cpus=gpu.get("cpus"),
    )


def links(site: SiteInput) -> dict[frozenset[str], int]:
    """How well each two GPUs are connected: {two UUIDs: rank}, higher is better; only what is known."""
    found = {}
    for facts in site.gpus.values():
        for link in facts.get("links", []):
            kind = str(link["kind"])
            rank = 100 + int(kind[2:]) if kind.startswith("NV") and kind[2:].isdigit() else _RANKS.get(kind, 0)
            found[frozenset((str(link["a"]), str(link["b"])))] = rank
    return found


def cpus_of(spot: Sequence[Device]) -> str | None:
    """The CPUs of the NUMA nodes of all devices, as a list for a cpuset; None when any is unknown."""
    if any(not device.cpus for device in spot):
        return None
    return ",".join(dict.fromkeys(str(device.cpus) for device in spot))


def numa_nodes(spot: Sequence[Device]) -> list[int]:
    """The NUMA nodes of all devices; empty when any is unknown."""
    nodes = [device.numa_node for device in spot]
    return sorted({node for node in nodes if node is not None}) if None not in nodes else []
