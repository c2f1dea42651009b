"""The hosts of a site as machines: each has one name, and each address is one that SSH and HAProxy understand."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from deploy_cli.plan import ports
from deploy_cli.plan.findings import Findings
from deploy_cli.plan.shapes import GROUPS, KeyPath, SiteInput, Unresolved
from deploy_cli.plan.wording import listing, shown

WILDCARDS = ("", "*", "0.0.0.0", "::", "[::]")  # noqa: S104 - recognised, not bound
_NAME = re.compile(r"[^\W.-][\w.-]{0,252}")
_SSH = (None, "ssh", "ansible.builtin.ssh", "paramiko", "paramiko_ssh", "smart")
_JUMPS = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args")
_REACH = ("site_address", "ansible_host")
_ONCE = "one machine is one host, named once: each name would give away all of its devices and ports"


def check(site: SiteInput, out: Findings) -> None:
    """Names and addresses of all hosts of the site."""
    machines: dict[Any, list[str]] = {}
    for host in site.hosts:
        if host in site.groups:
            out.add_site(
                f"host `{host}` has the name of a group",
                "Ansible puts the host's variables on the group, for every host in it: give one of them another name",
            )
        _check_addresses(site, host, out)
        if machine := _machine(site, host):
            machines.setdefault(machine, []).append(host)
    for names in machines.values():
        if len(names) > 1:
            _one_machine(site, names, out)
    _check_reach(site, out)


def _one_machine(site: SiteInput, names: Sequence[str], out: Findings) -> None:
    """One problem for all names of a machine: a template that gives one address gives it to every host."""
    said = f"hosts {' and '.join(f'`{n}`' for n in names) if len(names) == 2 else listing(names)} are one machine"
    every, second = "both" if len(names) == 2 else "all", names[1]
    if is_local(site, second):
        # Somebody may only be trying a plan: nothing says that it is meant for real machines.
        what = f"{said}: {every} have `ansible_connection: local`"
        out.add(second, ("ansible_connection",), what, _ONCE, "warning")
        return
    values = site.hosts[second]
    port = ports.number(values.get("ansible_port")) or 22
    what = f"{said}: {every} are reached at {values.get('ansible_host') or second}, port {port}"
    out.add(second, ("ansible_host",), what, _ONCE)


def address(site: SiteInput, host: str) -> str:
    """Name or address by which other hosts reach this one."""
    values = site.hosts.get(host, {})
    return str(values.get("site_address") or values.get("ansible_host") or host)


def _check_reach(site: SiteInput, out: Findings) -> None:
    """Where a site has several hosts, none of them calls itself what every machine calls itself."""
    parts = dict.fromkeys(host for name in GROUPS for host in site.groups.get(name, ()))
    for host in parts if len(parts) > 1 else ():
        given = site.hosts.get(host, {})
        if any(isinstance(given.get(name), Unresolved) or out.is_bad(host, name) for name in _REACH):
            continue
        found = _normal(address(site, host))
        if found == "localhost" or _is_loopback(found):
            what = f"the other hosts of the site cannot reach {host} at {found}: that is each one itself"
            out.add(host, ("site_address",), what, "give it `site_address`, the address by which they reach it")


def is_published(text: str) -> bool:
    """Whether Docker publishes ports on what is written so: an IPv4 address."""
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def is_local(site: SiteInput, host: str) -> bool:
    """Whether a host is the control node itself."""
    return host == "localhost" or site.hosts.get(host, {}).get("ansible_connection") == "local"


def _machine(site: SiteInput, host: str) -> tuple[Any, ...] | None:
    """What two names of one machine have in common; None where that is not known."""
    if is_local(site, host):
        return ("local",)
    values = site.hosts[host]
    address = values.get("ansible_host") or host
    if not isinstance(address, str) or values.get("ansible_connection") not in _SSH:
        return None
    # Behind two jump hosts, one private address may be two machines.
    jumps = [f"{values.get(name)}" for name in _JUMPS]
    return ("ssh", _normal(address), ports.number(values.get("ansible_port")) or 22, *jumps)


def _normal(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")


def _check_addresses(site: SiteInput, host: str, out: Findings) -> None:
    values = site.hosts[host]
    named = ["ansible_host", "site_address"]
    if host in site.groups.get("gateway", ()):
        named.append("haproxy_bind_address")
    for name in named:
        value, path = values.get(name), (name,)
        if value is None or isinstance(value, Unresolved) or out.is_bad(host, name):
            continue
        if name == "haproxy_bind_address" and value in WILDCARDS:
            continue
        if hint := wrong(value):
            out.add(host, path, f"`{name}` of {host} is no address: {_shown(path, value)}", hint)
    if values.get("ansible_host") is None and not is_local(site, host) and wrong(host):
        what = f"the name of host `{host}` is no address that SSH could reach it by"
        out.add(host, ("ansible_host",), what, "give it an `ansible_host`, or another name")


def _shown(path: KeyPath, value: Any) -> str:
    if not isinstance(value, str) or not value:
        return shown(path, value)
    return f"`{value[:60]}`" if value.isprintable() and value == value.strip() else f"{value[:60]!r}"


def wrong(value: Any) -> str:
    """How to put an address right that is none; empty where it is the name or IP address of a host."""
    text = value if isinstance(value, str) else f"{value}"
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        return "" if isinstance(value, str) else "write it in quotes"
    if re.fullmatch(r"[\d.]+", text):
        return "an IPv4 address has four numbers, none above 255"
    if isinstance(value, str) and _NAME.fullmatch(text):
        return ""
    if text != text.strip():
        return "take away the blank or line break around it"
    if "://" in text:
        return "the name or address alone, without `http://` or a path"
    if "@" in text:
        return "the name or address alone; the user belongs into `ansible_user`"
    if re.fullmatch(r"([^:]+|\[.*\]):\d+", text):
        return "the name or address alone; a port belongs into `ansible_port`, that of the gateway into `haproxy_port`"
    if isinstance(value, str) and text.startswith("[") and text.endswith("]"):
        return "write the IPv6 address without brackets"
    return "the name or address of a host, such as gpu1.example.org, 192.0.2.4 or 2001:db8::4"
