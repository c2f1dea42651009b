"""What nvidia-smi prints -> plain data. Text in, data out; what cannot be read is a problem, never an exception.

Field names of the XML have changed over the driver branches (450 to 615); each is looked for under all its names.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

Problem = dict[str, Any]

# What it prints instead of answering -> (code, what, hint). The first that fits counts.
FAILURES = (
    (
        r"couldn't find libnvidia-ml",
        "no_library",
        "nvidia-smi is there, and the driver's library is not",
        "`deployctl up` installs the driver",
    ),
    (
        r"driver/library version mismatch|undefined symbol: nvml",
        "version_mismatch",
        "the NVIDIA library and the loaded kernel module are of different versions",
        "reboot, or reload the nvidia modules once no process uses a GPU; keep the packages held",
    ),
    (
        r"GPU is lost|fallen off the bus|Unable to determine the device handle",
        "gpu_lost",
        "a GPU does not answer any more",
        "drain the host and power it off and on; if it happens again, the GPU, riser or power supply is at fault",
    ),
    (
        r"couldn't communicate with the NVIDIA driver|Driver Not Loaded|blocked by the operating system"
        r"|Failed to initialize NVML: (?!.*permission)",
        "driver_not_loaded",
        "nvidia-smi is there, and the driver's kernel module does not answer it",
        "see `dkms status` and `dmesg | grep -i nvrm`; a driver that was just installed may need a reboot",
    ),
    (
        r"Insufficient Permissions|No permission|suff+icient permission",
        "no_permission",
        "this user may not ask the driver",
        "use a user who may open /dev/nvidiactl, or become root",
    ),
    (r"No devices were found", "no_gpu", "the driver runs and finds no GPU", "see `lspci -d 10de:` and dmesg"),
)
HINTS = {code: hint for _pattern, code, _what, hint in FAILURES} | {
    "gpu_needs_reset": "drain the host; then `nvidia-smi --gpu-reset` while nothing uses the GPU, or a reboot",
    "fabric_not_ready": "see `systemctl status nvidia-fabricmanager`: it has to run, in the driver's exact version",
}
NOTHING = re.compile(
    r"^\[?\s*(?:N/?A|ERR!?|Unknown Error|Not Supported|Requested functionality.*|Insufficient Permissions|GPU is lost"
    r"|GPU requires reset|Unknown|Not Found|None)\s*\]?$",
    re.IGNORECASE,
)
BROKEN = re.compile(r"ERR!|Unknown Error|GPU is lost|requires reset", re.IGNORECASE)
# How a GPU that shares the machine's memory answers when it is asked for its own.
SHARED = re.compile(r"\[?(N/A|Not Supported)\]?", re.IGNORECASE)
# What the driver wants done with the GPU, and what it calls broken about its memory.
AILING = "see dmesg for Xid messages; `nvidia-smi --gpu-reset` or a reboot while nothing serves there may help"
WAITING = {"gpu_recovery_action"}
BAD = {"remapped_row_failure", "remapped_row_pending", "pending_retirement", "pending_blacklist", "reset_required"}
# Words after which CUDA does not begin on the GPU: (in this field only, pattern, problem).
STOPPED = (
    ("gpu_recovery_action", r"Reset|Reboot|Node Reboot", "gpu_needs_reset"),
    ("", r".*requires reset.*", "gpu_needs_reset"),
    ("", r".*GPU is lost.*", "gpu_lost"),
)
FABRIC = {
    "fabric/state": r"In Progress|Not Started",
    "fabric/status": r"(?!Success|N/?A|Not Supported).+",
    "fabric/health/summary": r"Unhealthy",
}

# Columns of `topo -m` after the links: CPUs, NUMA node, the GPU's own NUMA node; `-` is a cell that drivers leave empty
# to fill up the width: after the number of a node, or before the N/A that stands for none.
AFFINITY = {"CPU Affinity": "c", "NUMA Affinity": "n", "GPU NUMA ID": "g"}
SHAPES = {"c": ("c",), "cn": ("cn", "c-n"), "cng": ("cng", "cn-g", "c-n-g")}


def problem(code: str, what: str, hint: str = "", gpu: str | None = None) -> Problem:
    """One problem as data."""
    return {"code": code, "what": what, "hint": hint, "gpu": gpu}


def failure(text: str) -> Problem | None:
    """Name the problem that an output tells of; None when it tells of none that is known."""
    for pattern, code, what, hint in FAILURES:
        if re.search(pattern, text, re.IGNORECASE):
            told = re.search(r"GPU\s*(?:\d+:\s*)?([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9])", text, re.I)
            library = re.search(r"NVML library version:\s*([\d.]+)", text)
            more = f" (library {library.group(1)})" if library and code == "version_mismatch" else ""
            return problem(code, what + more, hint, bus_id(told.group(1)) if told else None)
    return None


def warnings(text: str) -> list[Problem]:
    """What nvidia-smi remarks beside its answer: an infoROM that cannot be read leaves a GPU that computes."""
    found = dict.fromkeys(re.findall(r"WARNING: (.*infoROM is corrupted) at gpu ([0-9A-F:.]+)", text, re.IGNORECASE))
    return [problem("gpu_ailing", f"GPU {bus_id(at)} works, and {what}", AILING, bus_id(at)) for what, at in found]


def bus_id(text: str) -> str:
    """PCI address as the kernel writes it: 00000000:C1:00.0 -> 0000:c1:00.0."""
    found = re.search(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-9A-Fa-f])", text)
    if not found:
        return text.strip().lower()
    domain, bus, slot, function = found.groups()
    return f"{domain[-4:]}:{bus}:{slot}.{function}".lower()


def mib(text: str) -> int | None:
    """An amount of memory in MiB, whatever its unit; None when it is no amount."""
    found = re.match(r"^\s*([0-9.]+)\s*([KMGT]?i?B)?\s*$", text or "")
    if not found:
        return None
    factor = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}.get((found.group(2) or "M")[0], 1)
    try:
        return int(float(found.group(1)) * factor)
    except (ValueError, OverflowError):
        return None


def whole(text: str) -> int | None:
    """A number as programs count things; None for anything else, also for what only looks like digits."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def value(text: str | None) -> str | None:
    """A field's text; None when it says that there is nothing."""
    text = (text or "").strip()
    return None if not text or NOTHING.match(text) else text


def gpu(index: int) -> dict[str, Any]:
    """A GPU of which nothing is known yet."""
    return {
        "index": index,
        "uuid": None,
        "name": None,
        "memory_total_mib": None,
        "memory_used_mib": None,
        "compute_capability": None,
        "pci": None,
        "mig": None,
        "mig_devices": [],
        "numa_node": None,
        "cpus": None,
        "processes": [],
        "usable": False,
        "problems": [],
        "ailing": {},
    }


def _whole_xml(text: str) -> ElementTree.Element | None:
    start, end = text.find("<nvidia_smi_log"), text.rfind("</nvidia_smi_log>")
    if start < 0 or end < 0:
        return None
    # Without the document type, so that nothing outside is named; control characters stand in broken inforoms.
    body = re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text[start : end + len("</nvidia_smi_log>")])
    body = re.sub(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9A-Fa-f]+);)", "&amp;", body)
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - a local program's output, without its document type
    except ElementTree.ParseError:
        return None


def _first(node: ElementTree.Element, *paths: str) -> str:
    for path in paths:
        found = (node.findtext(path) or "").strip()
        if found:
            return found
    return ""


def from_xml(text: str) -> dict[str, Any] | None:
    """`nvidia-smi -q -x` -> {driver, cuda, gpus}; None when it is no whole document."""
    root = _whole_xml(text)
    if root is None:
        return None
    gpus = [_gpu_of_xml(node, place) for place, node in enumerate(root.findall("gpu"))]
    # From 610 on words stand behind the number: 610.57.04 [Deprecated; will be removed in CUDA 14.0. ...].
    told = (re.sub(r"(?s)^(\d+(\.\d+)+)\s.*", r"\1", _first(root, f"{name}_version")) for name in ("driver", "cuda"))
    driver, cuda = map(value, told)
    return {"driver": driver, "cuda": cuda, "gpus": gpus}


def _gpu_of_xml(node: ElementTree.Element, place: int) -> dict[str, Any]:
    found = gpu(place)
    total, used = _first(node, "fb_memory_usage/total"), _first(node, "fb_memory_usage/used")
    mode = _first(node, "mig_mode/current_mig").lower()
    found |= {
        "uuid": value(_first(node, "uuid")),
        "name": value(_first(node, "product_name")),
        "memory_total_mib": mib(total),
        "memory_used_mib": mib(used),
        "compute_capability": value(_first(node, "compute_cap", "cuda_compute_capability")),
        "pci": bus_id(node.get("id") or _first(node, "pci/pci_bus_id", "pci/bus_id")),
        "mig": mode if mode in ("enabled", "disabled") else None,
        "mig_devices": [_mig(one, found) for one in node.findall("mig_devices/mig_device")],
        "processes": [p for p in map(_process, node.findall("processes/process_info")) if p],
        "ailing": _ailing(node),
    }
    for name, told in (*((tag, _first(node, tag)) for tag in ("product_name", "uuid")), ("memory", total)):
        if BROKEN.search(told):
            found["problems"].append(_broken(told))
            found["name"] = found["name"] if name != "product_name" else None
    found["problems"] += [
        code
        for field, words in found["ailing"].items()
        for where, pattern, code in STOPPED
        if where in ("", field) and re.fullmatch(pattern, words, re.IGNORECASE)
    ]
    if SHARED.fullmatch(total) and not found["mig_devices"]:
        found["problems"].append("gpu_unified")
    return found


def _broken(words: str) -> str:
    lowered = words.lower()
    return "gpu_lost" if "lost" in lowered else "gpu_needs_reset" if "requires reset" in lowered else "gpu_error"


def _ailing(node: ElementTree.Element) -> dict[str, str]:
    """Fields in which a GPU says that something about it is broken, or what it waits for: {field: its words}.

    A tag may stand there more than once; the first one that says so counts.
    """
    others = {leaf for part in node.findall("processes") for leaf in part.iter()}
    told = [(leaf.tag, (leaf.text or "").strip()) for leaf in node.iter() if leaf not in others and not len(leaf)]
    found: dict[str, str] = {}
    for field, words in told:
        if BROKEN.search(words) or (field in WAITING and value(words)) or (field in BAD and words == "Yes"):
            found.setdefault(field, words)
    for field, pattern in FABRIC.items():
        words = _first(node, field)
        if re.fullmatch(pattern, words, re.IGNORECASE):
            found[field] = words
    return found


def _mig(node: ElementTree.Element, parent: dict[str, Any]) -> dict[str, Any]:
    name = _first(node, "name", "profile_name") or f"MIG {_first(node, 'index')}".strip()
    return {
        "uuid": value(_first(node, "uuid")),
        "name": name,
        "memory_total_mib": mib(_first(node, "fb_memory_usage/total")),
    }


def _process(node: ElementTree.Element) -> dict[str, Any] | None:
    pid = whole(_first(node, "pid"))
    if pid is None:
        return None
    name, kind, used = _first(node, "process_name"), _first(node, "type"), _first(node, "used_memory")
    return {"pid": pid, "name": value(name), "type": value(kind), "memory_mib": mib(used)}


def from_csv(text: str, fields: list[str]) -> list[dict[str, Any]]:
    """`nvidia-smi --query-gpu=FIELDS --format=csv,noheader[,nounits]` -> GPUs; lines that do not fit are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(fields) or "," in fields:
            continue
        told = dict(zip(fields, (cell.strip() for cell in row)))  # noqa: B905 - Python 3.9 runs on hosts
        index = whole(told.get("index", ""))
        if index is None and not told.get("uuid", "").startswith("GPU-"):
            continue
        one = gpu(len(found) if index is None else index)
        mode = told.get("mig.mode.current", "").lower()
        one |= {
            "uuid": value(told.get("uuid")),
            "name": value(told.get("name")),
            "memory_total_mib": mib(told.get("memory.total", "")),
            "memory_used_mib": mib(told.get("memory.used", "")),
            "compute_capability": value(told.get("compute_cap")),
            "pci": bus_id(told["pci.bus_id"]) if value(told.get("pci.bus_id")) else None,
            "mig": mode if mode in ("enabled", "disabled") else None,
        }
        for cell in told.values():
            if BROKEN.search(cell):
                one["problems"].append(_broken(cell))
        if SHARED.fullmatch(told.get("memory.total", "")):
            one["problems"].append("gpu_unified")
        found.append(one)
    return found


def from_list(text: str) -> list[dict[str, Any]]:
    """`nvidia-smi -L` -> GPUs with their names, UUIDs (a Jetson's is without GPU-) and MIG devices."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        card = re.match(r"^GPU ([0-9]{1,9}): (.*?) \(UUID: ((?:GPU-)?[0-9A-Fa-f-]+)\)", line)
        part = re.match(r"^\s+(MIG .*?)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)", line)
        if card:
            one = gpu(int(card.group(1)))
            one |= {"name": value(card.group(2)), "uuid": card.group(3)}
            found.append(one)
        elif part and found:
            found[-1]["mig"] = "enabled"
            found[-1]["mig_devices"].append({"uuid": part.group(2), "name": part.group(1), "memory_total_mib": None})
    return found


def topology(text: str) -> dict[str, Any]:
    """`nvidia-smi topo -m` -> {links: {(i, j): kind}, cpus: {i: text}, numa: {i: node}} by GPU index.

    What a row says of CPUs and nodes is taken only where each of its cells has one place: a wrong one would tie an
    engine to CPUs far away, and what is left out is read from /sys.
    """
    links: dict[Any, str] = {}
    cpus: dict[int, str] = {}
    numa: dict[int, int] = {}
    header: list[str] = []
    for raw in text.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", raw)
        # An empty cell is seen between tabs only; with blanks between them a row is whole or says less.
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else re.split(r"\s{2,}", line.strip()))]
        names = [cell for cell in cells if cell]
        if not names or not re.fullmatch(r"GPU[0-9]{1,9}", names[0]):
            continue
        if not header and names[1:2] != ["X"]:
            header = names
            continue
        end = header.index("CPU Affinity") if "CPU Affinity" in header else len(header)
        columns, row, after = header[:end], cells[1 : end + 1], cells[end + 1 :]
        # A GPU meets itself in one cell, and no link begins with a digit: else the row is not in step with the header.
        own = columns.index(cells[0]) if cells[0] in columns else len(row)
        if row[own : own + 1] != ["X"] or any(cell[:1].isdigit() for cell in row):
            continue
        index = int(cells[0][3:])
        for name, cell in zip(columns, row):  # noqa: B905 - Python 3.9 runs on hosts
            if re.fullmatch(r"GPU[0-9]{1,9}", name) and re.fullmatch(r"NV[0-9]+|PIX|PXB|PHB|NODE|SYS", cell):
                links[index, int(name[3:])] = cell
        near = _affinity(header[end:], after) if all(row) else {}
        if re.fullmatch(r"[0-9][0-9,\-]*", near.get("c", "")):
            cpus[index] = near["c"]
        node = whole(near.get("n", ""))
        if node is not None:
            numa[index] = node
    return {"links": links, "cpus": cpus, "numa": numa}


def _affinity(names: list[str], cells: list[str]) -> dict[str, str]:
    """The cells after the links by the letter of their column; empty where none of the known shapes fits."""
    for shape in SHAPES.get("".join(AFFINITY.get(name, "?") for name in names), ()):
        if len(shape) == len(cells) and not any(cells[at] for at, letter in enumerate(shape) if letter == "-"):
            return dict(zip(shape, cells))  # noqa: B905 - Python 3.9 runs on hosts
    return {}


def judged(found: list[dict[str, Any]]) -> list[Problem]:
    """Say which GPUs can be used, and name what is wrong with the others; changes `usable` and `problems` in them."""
    problems, seen = [], set()
    for one in found:
        where = one["uuid"] or one["pci"]
        label = f"GPU {one['index']}" + (f" ({one['pci']})" if one["pci"] else "")
        if "gpu_lost" in one["problems"]:
            problems.append(problem("gpu_lost", f"{label} is lost", HINTS["gpu_lost"], where))
        elif one["uuid"] is None:
            one["problems"].append("gpu_error")
            problems.append(
                problem("gpu_error", f"{label} tells no UUID", "see dmesg; a reset or reboot may help", where)
            )
        elif one["uuid"] in seen:
            one["problems"].append("gpu_error")
            problems.append(problem("gpu_error", f"{label} has the UUID of another GPU", "see dmesg", where))
        elif "gpu_needs_reset" in one["problems"]:
            what = f"{label} cannot be used: {_said(one) or 'GPU requires reset'}"
            problems.append(problem("gpu_needs_reset", what, HINTS["gpu_needs_reset"], where))
        elif one["problems"] == ["gpu_unified"]:
            what = f"{label} works, and tells no memory of its own (unified memory): engines are not planned on it"
            problems.append(problem("gpu_unified", what, "leave it out of `devices`", where))
        elif one["problems"] or not (one["memory_total_mib"] or one["mig_devices"]):
            one["problems"] = one["problems"] or ["gpu_error"]
            problems.append(
                problem("gpu_error", f"{label} does not tell its memory, or fails in other fields", "see dmesg", where)
            )
        elif one["ailing"]:
            # Its fabric manager may still come to it, or be installed: it is planned with, and waited for.
            if one["ailing"].get("fabric/state", "").lower() == "in progress":
                what = f"{label}: CUDA does not begin on it yet: {_said(one)}"
                problems.append(problem("fabric_not_ready", what, HINTS["fabric_not_ready"], where))
            else:
                hint = HINTS["fabric_not_ready"] if set(one["ailing"]) <= set(FABRIC) else AILING
                problems.append(problem("gpu_ailing", f"{label} works, and says: {_said(one)}", hint, where))
        seen.add(one["uuid"])
        one["problems"] = sorted(set(one["problems"]))
        one["usable"] = not one["problems"]
    return problems


def _said(one: dict[str, Any]) -> str:
    return ", ".join(f"{field} {words}" for field, words in sorted(one["ailing"].items()))
