"""The site as files: YAML whose every value says where it comes from. Pure.

Values are written by the YAML library; what hosts and users say stands in quotes where YAML needs it, and in comments
without anything that could end one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from deploy_cli.init.hosts import Found
from deploy_cli.init.site import Site, Value

WIDTH = 118
COLUMN = 40


def files(site: Site, inventory: str) -> dict[str, str]:
    """Return {path below the inventories' folder: text}. inventory: how a user names the file, for the comments."""
    group = site.wanted.group
    return {
        f"{site.wanted.site}.yml": _joined(_inventory(site, inventory)),
        f"group_vars/{group}/main.yml": _joined(_main(site)),
        f"group_vars/{group}/models.yml": _joined(_models(site, inventory)),
    }


def _joined(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """Make a text fit for a comment: one line, nothing that does not print."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    told: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return told.removesuffix("\n").removesuffix("\n...")


def entry(value: Value, indent: str) -> Iterator[str]:
    """Yield the lines of `name: value  # source`; a list gets a line an item, its source stands above."""
    if isinstance(value.value, list):
        if value.source:
            yield f"{indent}# {comment(value.source)}"
        yield f"{indent}{value.name}:"
        for item in value.value:
            yield from _item(item, indent + "  ")
        return
    line = f"{indent}{value.name}: {scalar(value.value)}"
    told = comment(value.source)
    if not told:
        yield line
    elif len(line) + len(told) + 4 > WIDTH:
        yield f"{indent}# {told}"
        yield line
    else:
        yield f"{line:<{COLUMN}}  # {told}"


def _item(item: Mapping[str, Any], indent: str) -> Iterator[str]:
    mark = "- "
    for key, value in item.items():
        yield f"{indent}{mark}{key}: {scalar(value)}"
        mark = "  "


def _inventory(site: Site, inventory: str) -> Iterator[str]:
    yield "---"
    yield f"# Site {site.wanted.site}, written by `deployctl init` from what its hosts are. It is yours from now on."
    yield f"# `deployctl plan {comment(inventory)}` says what would run where; it needs no host."
    yield f"# What counts for the whole site lies in group_vars/{site.wanted.group}/."
    for host in site.hosts:
        yield "#"
        for line in _seen(host, site):
            yield f"# {comment(line) if not line.startswith(' ') else '  ' + comment(line)}"
    yield "all:"
    yield "  children:"
    yield f"    {scalar(site.wanted.group)}:"
    yield "      children:"
    told: set[str] = set()
    for group, names in site.groups.items():
        yield f"        {group}:"
        yield "          hosts:"
        for name in names:
            yield f"            {scalar(name)}:"
            if name not in told:
                for value in site.values[name]:
                    yield from entry(value, " " * 14)
            told.add(name)


def _seen(host: Found, site: Site) -> Iterator[str]:
    """Say what a host is; what stands below its first line is moved in."""
    look, hardware = host.system, host.hardware
    system, kernel = look.get("os") or {}, look.get("kernel") or {}
    boot = f"; Secure Boot {look['secure_boot']}" if look.get("secure_boot") else ""
    name = system.get("name") or system.get("id") or "an unknown system"
    yield f"{host.name} ({host.target.word}): {name}, kernel {kernel.get('release')}, {system.get('arch')}{boot}"
    cpu = hardware.get("cpu") or {}
    yield (
        f"  CPU: {cpu.get('sockets') or 1}x {cpu.get('model') or 'unknown'}, {cpu.get('threads')} threads, "
        f"{hardware.get('numa_nodes') or 1} NUMA node(s); {hardware.get('memory_gib')} GiB of memory"
    )
    for line in site.holdings[host.name].lines:
        yield f"  {line}"
    driver = (host.gpu.get("driver") or {}).get("version")
    docker = look.get("docker") or {}
    words = [f"NVIDIA driver {driver}" if driver else "no NVIDIA driver"]
    words.append(f"Docker {docker.get('version')}" if docker.get("answers") else "no Docker that answers")
    words.append(f"container toolkit {look['toolkit']}" if look.get("toolkit") else "no container toolkit")
    yield f"  software: {', '.join(words)}"
    for mount in host.mounts():
        drives = ", ".join(f"{d['name']} {d['model']}".strip() for d in mount["drives"]) or str(mount["device"])
        free = f"{mount['free_gib']:g} of {mount['total_gib']:g} GiB free"
        yield f"  disk: {mount['path']}, {mount['kind']} on {drives}, {free}"
    for one in host.interfaces():
        speed = f"{one['speed_mbit'] / 1000:g} Gb/s" if one["speed_mbit"] else "speed unknown"
        route = ", default route" if one["default"] else ""
        yield f"  network: {one['name']}, {speed}{route}: {', '.join(one['addresses'])}"


def _main(site: Site) -> Iterator[str]:
    yield "---"
    yield f"# What counts for all hosts of site {site.wanted.site}. docs/roles.md names every variable."
    for value in site.shared:
        yield from entry(value, "")


def _models(site: Site, inventory: str) -> Iterator[str]:
    yield "---"
    yield f"# What is served: a default for what was found. Change it; `deployctl plan {comment(inventory)}` checks."
    yield f"# Chosen: {comment(site.why)}."
    hub = any("revision" in model for model in site.models)
    yield "# name: what a client sends as `model`. source: `org/name` of a hub, an absolute path, `synthetic:<preset>`."
    yield "# replicas: a number, or `max` for every device that is left. tensor_parallel: devices of one instance."
    if hub:
        yield "# revision: a branch can change under you; pin the commit you tested (40 hexadecimal digits)."
    yield "models:"
    for model in site.models:
        yield from _item(model, "  ")
