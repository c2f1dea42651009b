"""Filters of the role host_firewall: who may connect, in the words of nftables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

Networks = Sequence[IPv4Network | IPv6Network]


def network(source: str) -> IPv4Network | IPv6Network | None:
    """An address or a CIDR as a network; None when it is neither, so a name."""
    try:
        return ip_network(source, strict=False)
    except ValueError:
        return None


def names(rules: Iterable[Mapping[str, Any]], extra: Iterable[str]) -> list[str]:
    """Every source that is no address: the host is asked for those."""
    sources = [source for rule in rules for source in rule["sources"]]
    return list(dict.fromkeys(str(s) for s in [*sources, *extra] if network(str(s)) is None))


def known(answers: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Addresses of each name, from what `getent ahosts` printed.

    An address that means the host itself is left out: a line in /etc/hosts gave it, and no packet comes from there.
    """
    found = {}
    for answer in answers:
        first = dict.fromkeys(line.split()[0] for line in answer.get("stdout", "").splitlines() if line.split())
        usable = [a for a in first if (n := network(a)) and not n.is_loopback and not n.is_link_local]
        found[str(answer["item"])] = usable
    return found


def unknown(answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names without a usable address."""
    return [name for name, addresses in known(answers).items() if not addresses]


def resolved(
    rules: Iterable[Mapping[str, Any]], extra: Iterable[str], answers: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each rule as {name, ports, v4, v6}: its sources and the extra ones by family, overlaps joined, in order."""
    addresses, more = known(answers), list(extra)
    lines = []
    for rule in rules:
        texts = [a for s in [*rule["sources"], *more] for a in addresses.get(str(s), [str(s)])]
        found = [n for n in map(network, texts) if n]
        v4 = collapse_addresses(n for n in found if isinstance(n, IPv4Network))
        v6 = collapse_addresses(n for n in found if isinstance(n, IPv6Network))
        ports = sorted({int(port) for port in rule["ports"]})
        lines.append({"name": str(rule["name"]), "ports": ports, "v4": _texts(v4), "v6": _texts(v6)})
    return lines


def _texts(found: Iterable[IPv4Network | IPv6Network]) -> list[str]:
    """Networks as nft prints them: a single address without its length."""
    return [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in found]


def bridge(inspected: str) -> dict[str, list[str]]:
    """{interfaces, v4, v6} of Docker's bridges, from what `docker network inspect` printed; empty without Docker."""
    found: dict[str, list[str]] = {"interfaces": ["docker0"], "v4": [], "v6": []}
    for entry in json.loads(inspected or "[]"):
        given = (entry.get("Options") or {}).get("com.docker.network.bridge.name")
        found["interfaces"].append(given or f"br-{entry['Id'][:12]}")
        for part in (entry.get("IPAM") or {}).get("Config") or []:
            subnet = network(part.get("Subnet", ""))
            if subnet:
                found["v6" if subnet.version == 6 else "v4"].append(str(subnet))
    return found


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Filters by the name that templates use."""
        return {
            "host_firewall_names": names,
            "host_firewall_unknown": unknown,
            "host_firewall_resolved": resolved,
            "host_firewall_bridge": bridge,
        }
