"""What was found on each host, under the name that it gets in the inventory. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy_cli.errors import Problem
from deploy_cli.init.targets import LOCALHOST, Target, Wanted

SAFE_PATH = re.compile(r"/[A-Za-z0-9._/@:+-]*")
SYSTEM_MOUNTS = ("/boot", "/snap", "/run", "/tmp", "/etc", "/usr", "/var/lib/docker", "/dev")  # noqa: S108 - told apart


@dataclass(frozen=True)
class Found:
    """A host that was looked at. hardware, system, gpu: the answers of host_hardware, host_look and gpu_facts."""

    target: Target
    name: str
    hardware: Mapping[str, Any]
    system: Mapping[str, Any]
    gpu: Mapping[str, Any]

    @property
    def root(self) -> bool:
        """Whether who logs in is root."""
        return bool((self.hardware.get("user") or {}).get("root"))

    @property
    def is_local(self) -> bool:
        """Whether this is the control node itself."""
        return self.target.name == LOCALHOST

    def mounts(self) -> list[Mapping[str, Any]]:
        """Mount points that data may be put on: the best for models first (NVMe, not the system's, most free space)."""

        def rank(mount: Mapping[str, Any]) -> tuple[int, int, float]:
            drives = mount.get("drives") or []
            kind = 0 if drives and all(d["nvme"] for d in drives) else 2 if any(d["rotational"] for d in drives) else 1
            return kind, mount["path"] == "/", -float(mount["free_gib"])

        usable = [
            mount
            for mount in self.hardware.get("mounts") or []
            if not mount["read_only"]
            and SAFE_PATH.fullmatch(str(mount["path"]))
            and not any(mount["path"] == own or mount["path"].startswith(f"{own}/") for own in SYSTEM_MOUNTS)
        ]
        return sorted(usable, key=rank)

    def interfaces(self) -> list[Mapping[str, Any]]:
        """Network interfaces that have an address, the one with the default route first."""
        found = [one for one in self.hardware.get("interfaces") or [] if one["addresses"]]
        return sorted(found, key=lambda one: not one["default"])

    def address(self) -> tuple[str, str]:
        """How other hosts reach this one, and where that is known from; empty when it is not known."""
        own = [(str(a), str(one["name"])) for one in self.interfaces() for a in one["addresses"] if _proper(str(a))]
        if self.target.address and self.target.address in dict(own):
            return self.target.address, f"the address that init was given; it is on {dict(own)[self.target.address]}"
        for one in self.interfaces():
            proper = [str(a) for a in one["addresses"] if _proper(str(a))]
            if one["default"] and proper:
                return min(proper, key=lambda a: ":" in a), f"address of {one['name']}, which has the default route"
        if self.target.address:
            return self.target.address, "the address that init was given; no interface of the host has it"
        return "", ""


def _proper(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def found(wanted: Wanted, answers: Mapping[str, Mapping[str, Any]]) -> tuple[list[Found], list[Problem]]:
    """Return the hosts that were looked at, and a problem for each that could not be, or is there twice.

    answers: by the word of the command line, {hardware, system, gpu}; each may be None.
    """
    hosts: list[Found] = []
    problems: list[Problem] = []
    taken = {wanted.group, wanted.site}
    machines: dict[str, str] = {}
    for target in wanted.targets:
        answer = answers.get(target.word) or {}
        # Without its GPUs a server would be written down as one that has none.
        if not (answer.get("hardware") and answer.get("system") and answer.get("gpu")):
            problems.append(unseen(target, str(answer.get("message") or "it was not looked at")))
            continue
        machine = str(answer["hardware"].get("machine") or target.word)
        first = machines.setdefault(machine, target.word)
        if first != target.word:
            problems.append(Problem(target.word, f"this is the same machine as {first}", "name each machine once"))
            continue
        name = _name(target, str(answer["hardware"].get("name") or ""), taken)
        taken.add(name)
        hosts.append(Found(target, name, answer["hardware"], answer["system"], answer["gpu"]))
    return hosts, problems


def _name(target: Target, own: str, taken: set[str]) -> str:
    """The name in the inventory: what the host was called, where that is a name, else what it calls itself."""
    if target.name == LOCALHOST:
        return LOCALHOST
    called = own if target.address else target.name
    stem = re.sub(r"[^a-z0-9-]+", "-", called.split(".")[0].lower()).strip("-") or "host"
    stem = "host" if stem == LOCALHOST else stem
    number, name = 1, stem
    while name in taken or name in ("all", "ungrouped", "serving", "gateway", "telemetry"):
        number += 1
        name = f"{stem}-{number}"
    return name


KEY_UNKNOWN = "its host key, or that of its jump host, is not known on this machine"
UNREACHABLE = "it cannot be reached"
_SAID: Sequence[tuple[str, str, str]] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .*has changed",
        "its host key is not the one that this machine knows: the host was installed anew, or it is another one",
        "compare the fingerprint with the host's own; only if it is right: `ssh-keygen -R {name}`, then `ssh {word}`",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        KEY_UNKNOWN,
        "run `ssh {word}` once and compare the fingerprint with the host's own (there: `ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub`), or get it by `ssh-keyscan {name}` and compare before it is trusted",
    ),
    (
        r"Permission denied \(|Too many authentication failures|no mutual signature",
        "ssh does not let us in",
        "try `ssh {word}`: it must log in by key, without a password; `ssh-copy-id {word}` puts a key there",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        "its name cannot be resolved",
        "correct the name, or give it a `HostName` in ~/.ssh/config",
    ),
    (
        r"Connection refused|timed out|No route to host|Network is unreachable|Connection closed|Connection reset",
        UNREACHABLE,
        "try `ssh {word}`; a port or a jump host belongs into ~/.ssh/config (`Port`, `ProxyJump`)",
    ),
    (
        r"sudo: (?:command )?not found|'sudo'|executable not found: sudo|No such file or directory: .?sudo",
        "there is no sudo",
        "install it there (`apt-get install sudo`), or log in as root: `root@{name}`",
    ),
    (
        r"[Ii]ncorrect sudo password|Sorry, try again|incorrect password attempt",
        "sudo refused the password",
        "run again with -K and the right password",
    ),
    (
        r"[Mm]issing sudo password|a password is required|a terminal is required|[Pp]rivilege escalation|become",
        "sudo wants a password",
        "run again with -K (--ask-become-pass): it is asked once and stored nowhere",
    ),
    (
        r"not in the sudoers|may not run sudo|is not allowed to (?:run|execute)",
        "the user may not use sudo",
        "give the user sudo, or log in as root: `root@{name}`",
    ),
    (
        r"interpreter.*not found|python3?: (?:command )?not found|/python3?: No such file",
        "there is no python3",
        "install it there: `apt-get install python3`, or `dnf install python3`",
    ),
)


def unseen(target: Target, message: str) -> Problem:
    """Say why a host could not be looked at, in our words where ssh's, sudo's or Ansible's are known."""
    told = " ".join(message.split()).removeprefix("Task failed: ")
    for pattern, what, hint in _SAID:
        if re.search(pattern, told):
            return Problem(target.word, what, hint.format(word=target.word, name=target.name))
    return Problem(
        target.word, f"it could not be looked at: {told[:400]}", f"try `ssh {target.word} python3 -V` by hand"
    )
