"""What stood on the command line: the site's name, and which host is to be what. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy_cli.errors import UsageError
from deploy_cli.plan.shapes import GROUPS

SITE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
# Only what ssh takes as a name and neither Ansible nor a shell takes as anything else; never an option.
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@$\\-]{0,63}")
HOST = re.compile(r"[^\W.-][\w.-]{0,252}")
RESERVED = ("all", "ungrouped", "localhost", *GROUPS)
LOCALHOST = "localhost"
SETTINGS = {
    "site": "DEPLOYCTL_INIT_SITE",
    "folder": "DEPLOYCTL_INIT_FOLDER",
    "serving": "DEPLOYCTL_INIT_SERVING",
    "gateway": "DEPLOYCTL_INIT_GATEWAY",
    "telemetry": "DEPLOYCTL_INIT_TELEMETRY",
    "force": "DEPLOYCTL_INIT_FORCE",
}
"""The environment variables by which the playbook learns what is wanted."""


@dataclass(frozen=True)
class Target:
    """A host as it was named: `user@name`, or `name`, which may be an alias of the user's ssh config."""

    word: str
    user: str
    name: str

    @property
    def address(self) -> str:
        """The name, where it is an IP address; else empty."""
        try:
            return str(ipaddress.ip_address(self.name))
        except ValueError:
            return ""


@dataclass(frozen=True)
class Wanted:
    """The site to be written. gateway, telemetry: words among those of `targets`; serving: the hosts that may serve."""

    site: str
    targets: tuple[Target, ...]
    serving: tuple[str, ...]
    gateway: str
    telemetry: str

    @property
    def group(self) -> str:
        """The site's own group."""
        return self.site.replace("-", "_")

    def environment(self, folder: str, *, force: bool) -> tuple[tuple[str, str], ...]:
        """What the playbook is told, as variables of its environment."""
        told = {
            "site": self.site,
            "folder": folder,
            "serving": ",".join(self.serving),
            "gateway": self.gateway,
            "telemetry": self.telemetry,
            "force": "1" if force else "",
        }
        return tuple((SETTINGS[name], value) for name, value in told.items() if value)


def target(word: str) -> Target:
    """Read `[user@]host`. UsageError for anything else."""
    user, at, name = word.rpartition("@")
    if at and not USER.fullmatch(user):
        raise UsageError(f"`{word}` does not begin with the name of a user", "write user@host, or host alone")
    found = Target(word, user, name)
    if found.address and "%" not in name:
        return found
    if re.fullmatch(r".+:\d+", name):
        host, _, port = name.rpartition(":")
        hint = f"a port belongs into ~/.ssh/config: `Host {host}` with `Port {port}`"
        raise UsageError(f"`{word}` names a port", hint)
    if not HOST.fullmatch(name):
        raise UsageError(
            f"`{word}` is not the name or address of a host", "write user@host, or an alias of ~/.ssh/config"
        )
    return found


def wanted(site: str, hosts: Sequence[str], gateway: str = "", telemetry: str = "") -> Wanted:
    """Check and sort what stood on the command line. UsageError for what cannot be followed."""
    group = site.replace("-", "_")
    if not SITE.fullmatch(site):
        hint = "letters, digits, `-` and `_`, beginning with a letter, such as `lab` or `lenovo-sr675`"
        raise UsageError(f"`{site}` cannot be the name of a site", hint)
    if group in RESERVED:
        raise UsageError(f"`{site}` cannot be the name of a site: Ansible or deployctl uses it", "take another name")
    if not hosts:
        raise UsageError("no host is named", f"deployctl init {site} user@host...")
    gateway = gateway or hosts[0]
    telemetry = telemetry or gateway
    words = list(dict.fromkeys([*hosts, gateway, telemetry]))
    targets = tuple(target(word) for word in words)
    names: dict[str, str] = {}
    for one in targets:
        other = names.setdefault(one.name, one.word)
        if other != one.word:
            hint = "name each host once, with one user"
            raise UsageError(f"`{other}` and `{one.word}` are one host", hint)
    return Wanted(site, targets, tuple(dict.fromkeys(hosts)), gateway, telemetry)


def from_settings(settings: Mapping[str, str]) -> Wanted:
    """Read back what `environment` told. UsageError as above."""
    hosts = [word for word in settings.get("serving", "").split(",") if word]
    return wanted(settings.get("site", ""), hosts, settings.get("gateway", ""), settings.get("telemetry", ""))
