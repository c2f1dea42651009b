"""Ports: which are taken by gateway and telemetry, which each instance gets, and what clashes.

An instance's port is a hash of its name, so it does not depend on the other entries of the list; where two meet, the
later one takes the next free port, and what runs keeps the port it has.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploy_cli.plan.placement import Seat
from deploy_cli.plan.shapes import KeyPath, Placed, SiteInput

_PORT_NAME = re.compile(r"(haproxy|jaeger)_(\w+_)?port")
_GROUP_OF = {"haproxy": "gateway", "jaeger": "telemetry"}


@dataclass(frozen=True)
class Clash:
    """A port that cannot be given; `path` is the key to point at."""

    host: str
    path: KeyPath
    what: str
    hint: str


def fixed(site: SiteInput) -> Iterator[tuple[str, str, int]]:
    """(host, variable, port) of everything the gateway and the telemetry listen on."""
    for name in sorted({*site.defaults, *(n for values in site.hosts.values() for n in values)}):
        match = _PORT_NAME.fullmatch(name)
        for host in site.groups.get(_GROUP_OF[match[1]], ()) if match else ():
            port = number(site.setting(host, name))
            if port:
                yield host, name, port


def number(value: object) -> int | None:
    """A whole number as Ansible takes it (8000 or "8000"), else None."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def assign(
    seats: Sequence[Seat], site: SiteInput, ranges: Mapping[str, tuple[int, int]], current: Mapping[str, Placed]
) -> tuple[dict[str, int], list[Clash]]:
    """Port of every instance, by name, and what clashes. `ranges`: first port and number of ports, by host."""
    taken: dict[tuple[str, int], str] = {}
    clashes: list[Clash] = []
    for host, name, port in fixed(site):
        other = taken.setdefault((host, port), f"`{name}`")
        if other != f"`{name}`":
            what = f"port {port} on {host} is used twice: {other} and `{name}`"
            clashes.append(Clash(host, (name,), what, "give one of them another port"))
    ports: dict[str, int] = {}
    for seat in seats:
        if seat.model.port is None:
            continue
        port, path = seat.model.port + seat.replica, ("models", seat.model.position, "port")
        other = taken.setdefault((seat.host, port), f"instance `{seat.name}`")
        ports[seat.name] = port
        if port > 65535:
            what = f"instance `{seat.name}` would get port {port}: they count up from `port`"
            clashes.append(Clash(seat.host, path, what, "take a lower port"))
        elif other != f"instance `{seat.name}`":
            what = f"port {port} on {seat.host} is used twice: {other} and instance `{seat.name}`"
            clashes.append(Clash(seat.host, path, what, "take another port, or leave `port` out and one is chosen"))
    free = [s for s in seats if s.model.port is None]
    for seat in free:
        placed = current.get(seat.name)
        base, size = ranges[seat.host]
        if not placed or not placed.port or placed.host != seat.host or (seat.host, placed.port) in taken:
            continue
        if base <= placed.port < base + size:
            taken[seat.host, placed.port] = f"instance `{seat.name}`"
            ports[seat.name] = placed.port
    for seat in free:
        if seat.name not in ports:
            found = _hashed(seat, taken, ranges[seat.host])
            if found is None:
                what = f"no port is left on {seat.host} for instance `{seat.name}`"
                clashes.append(Clash(seat.host, ("vllm_port_range",), what, "raise `vllm_port_range`"))
            else:
                taken[seat.host, found] = f"instance `{seat.name}`"
                ports[seat.name] = found
    return ports, clashes


def _hashed(seat: Seat, taken: Mapping[tuple[str, int], str], ports: tuple[int, int]) -> int | None:
    base, size = ports
    start = zlib.crc32(seat.name.encode())
    for step in range(min(size, 65536)):
        port = base + (start + step) % size
        if port <= 65535 and (seat.host, port) not in taken:
            return port
    return None
