"""What was found on a host -> one line per check. Rules only: thresholds come from outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from deploy_cli.doctor import gpu as gpu_rules
from deploy_cli.doctor import space
from deploy_cli.doctor.lines import Line, State
from deploy_cli.plan import hosts

UP_DOES = "`deployctl up` installs it"
WILDCARDS = ("0.0.0.0", "::", "*", "")  # noqa: S104 - recognised, not bound


class Told:
    """The lines of one host, in the order in which they were told."""

    def __init__(self, host: str) -> None:
        """Begin with none."""
        self.host = host
        self.lines: list[Line] = []

    def say(self, check: str, state: State, what: str, hint: str = "", *, blocks: bool = False) -> None:
        """Add a line."""
        self.lines.append(Line(self.host, check, state, what, hint, blocks))


def judge(
    host: str,
    answer: Mapping[str, Any],
    gpu: Mapping[str, Any] | None,
    needs: Mapping[str, Any],
) -> list[Line]:
    """Return the lines of one host.

    answer: the registered result of host_look: `look`, or `unreachable` or `msg` of a host that could not be looked at.
    gpu: `ansible_facts.gpu` of gpu_facts, None where it was not asked. needs: of deploy_cli.doctor.needs.
    """
    told = Told(host)
    look = answer.get("look")
    if not look:
        _unseen(told, answer)
        _address(told, needs)  # known from the inventory alone
        return told.lines
    for probe, check in CHECKS.items():
        if look[probe] is not None:  # else it broke, and says so below
            check(told, look, needs)
    space.judge(told, look, needs)
    if needs["nvidia"]:
        gpu_rules.judge(told, look, gpu, needs)
    _address(told, needs)
    _ports(told, look, needs)
    _firewall(told, look, needs)
    _reach(told, look, needs)
    for probe, why in sorted((look.get("errors") or {}).items()):
        told.say(probe.replace("_", " "), "hint", f"could not be looked at: {why}")
    return told.lines


def _unseen(told: Told, answer: Mapping[str, Any]) -> None:
    message = " ".join(str(answer.get("msg") or "no answer").split()).removeprefix("Task failed: ")
    if answer.get("unreachable"):
        hint = "check that `ssh` to this host works, and ansible_host and ansible_user in the inventory"
        told.say("connection", "problem", f"unreachable: {message}", hint, blocks=True)
        return
    sudo = re.search(r"sudo|become|privilege", message, re.IGNORECASE)
    hint = "check sudo on this host; -K asks for its password" if sudo else "log in by hand and try python3 there"
    told.say("sudo" if sudo else "connection", "problem", message, hint, blocks=True)


def _system(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    system, limits = look["os"], needs["limits"]
    name = system.get("name") or system.get("id") or "unknown"
    family = _family(system, limits["systems"])
    version = str(system.get("version", ""))
    versions = [str(known) for known in limits["systems"].get(family, [])]
    # RHEL's family counts minor versions: 9.4 is a 9.
    if version in versions or (family == "rhel" and version.split(".")[0] in versions):
        told.say("system", "ok", name)
    else:
        known = "; ".join(f"{key} {', '.join(map(str, found))}" for key, found in limits["systems"].items())
        told.say("system", "problem", f"{name} is not supported", f"supported are {known}", blocks=True)
    if system.get("arch") not in limits["architectures"]:
        what = f"{system.get('arch')}, and the images are for {', '.join(limits['architectures'])}"
        told.say("architecture", "problem", what, "take a host of that architecture", blocks=True)


def _family(system: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    names = [system.get("id", ""), *(["rhel"] if "rhel" in (system.get("like") or []) else [])]
    return next((str(name) for name in names if name in known), "")


def _kernel(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    kernel = look["kernel"]
    release = kernel.get("release", "unknown")
    if not needs["nvidia"]:
        told.say("kernel", "ok", release)
    elif kernel.get("headers"):
        told.say("kernel", "ok", f"{release}, with its headers")
    else:
        told.say("kernel", "hint", f"{release}, no headers of it", f"the driver is built against them; {UP_DOES}")


def _user(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    user = look["user"]
    if user.get("root"):
        told.say("user", "ok", f"works as {user.get('name')}")
    else:
        hint = "set ansible_become: true for this host, and -K if sudo wants a password"
        told.say("user", "problem", f"works as {user.get('name')}, which is not root", hint, blocks=True)


def _python(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    found, least = str(look["python"]), str(needs["limits"]["python_min"])
    if version(found) >= version(least):
        told.say("python", "ok", found)
    else:
        told.say("python", "problem", f"{found}, and modules need {least}", "set ansible_python_interpreter")


def _memory(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    memory, least = look["memory"], float(needs["limits"]["memory_gib"])
    free, total = memory.get("available_gib"), memory.get("total_gib")
    if free is None:
        told.say("memory", "hint", "not known: /proc/meminfo does not say it", "look by hand: free -g")
        return
    what = f"{free} GiB free of {total} GiB, cgroup v{look['cgroup']}"
    if needs["models"] and free < least:
        told.say("memory", "hint", what, f"below {least:g} GiB (host_checks_memory_gib) an engine may not start")
    else:
        told.say("memory", "ok", what)


def _clock(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    clock, limits = look["clock"], needs["limits"]
    ahead, ntp = clock.get("ahead_seconds"), clock.get("ntp")
    word = {True: "synchronised", False: "not synchronised", None: "NTP's state unknown"}[ntp]
    if ahead is None:
        told.say("clock", "skipped", f"not compared, {word}")
        return
    apart = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the control node"
    hint = "switch time synchronisation on: timedatectl set-ntp true"
    if abs(ahead) > float(limits["clock_seconds"]):
        told.say("clock", "problem", f"{apart}, {word}", hint, blocks=abs(ahead) > float(limits["clock_stop_seconds"]))
    elif ntp is False:
        told.say("clock", "hint", f"in step, {word}", hint)
    else:
        told.say("clock", "ok", f"in step, {word}")


def _secure_boot(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    state = look["secure_boot"]
    if state == "enabled" and needs["nvidia"]:
        return  # judged with the driver
    words = {"unsupported": "no UEFI", "": "not known: mokutil is not there"}
    told.say("secure boot", "ok", words.get(state, str(state)))


def _docker(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    docker = look["docker"]
    if not docker.get("present"):
        _docker_to_come(told, look, needs)
        return
    if docker.get("other"):
        hint = "remove it (snap remove docker, or the package podman-docker); `deployctl up` installs the engine"
        told.say("docker", "problem", str(docker["other"]), hint, blocks=True)
        return
    if not docker.get("answers"):
        hint = "systemctl status docker says why; `deployctl up` starts it"
        told.say("docker", "problem", f"does not answer: {docker.get('why') or 'it is not running'}", hint)
        return
    what = f"{docker['version']}, {docker['storage_driver']}, cgroup v{docker['cgroup_version']}"
    what += f" by {docker['cgroup_driver']}"
    least, wanted = str(needs["limits"]["docker_cdi_min"]), str(needs["docker_version"])
    coming = wanted and not _is_of(docker["version"], wanted)
    # Wanted may be as little as `25`, which is no older than 25.0.
    number = (*version(_upstream(wanted) if coming else docker["version"]), 0)
    if needs["nvidia"] and needs["gpu_driver"] == "cdi" and number < version(least):
        hint = f"take Docker {least} or newer: docker_version, from a repository that the host knows"
        told.say("docker", "problem", f"{what}: too old for CDI devices", hint, blocks=True)
    elif coming:
        hint = "`deployctl up` brings the engine to it, host by host"
        told.say("docker", "hint", f"{what}; wanted is {wanted}", hint)
    elif docker["live_restore"]:
        told.say("docker", "ok", f"{what}, live-restore")
    else:
        hint = "a restart of the engine stops every container; `deployctl up` switches live-restore on"
        told.say("docker", "hint", f"{what}, no live-restore", hint)


def _docker_to_come(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    """Say what `up` would install, where that is known: an engine without CDI gives no container a GPU."""
    candidate, least = str((look["docker"] or {}).get("candidate") or ""), str(needs["limits"]["docker_cdi_min"])
    wanted = _upstream(str(needs["docker_version"]) or candidate)
    if needs["nvidia"] and needs["gpu_driver"] == "cdi" and wanted and (*version(wanted), 0) < version(least):
        hint = (
            f"make known to the host a repository that has {least} or newer, such as Docker's own: docker_packages: "
            "[docker-ce, docker-ce-cli, containerd.io, docker-buildx-plugin, iptables, python3-requests]"
        )
        told.say("docker", "problem", f"not there, and to come is {wanted}: too old for CDI devices", hint, blocks=True)
    else:
        told.say("docker", "hint", "not there", UP_DOES)


def _upstream(package: str) -> str:
    """Return a package's version without its epoch."""
    return package.split(":")[-1]


def _is_of(engine: str, wanted: str) -> bool:
    """Say whether an engine's own version can be of the wanted package: one of them begins with the other."""
    shorter, longer = sorted((engine, _upstream(wanted)), key=len)
    return longer.startswith(shorter) and not longer[len(shorter) :][:1].isdigit()


def _address(told: Told, needs: Mapping[str, Any]) -> None:
    for named in [address for address in needs["published"] if not hosts.is_published(address)]:
        hint = "give this host `site_address`: the IPv4 address by which the other hosts reach it"
        told.say(
            "address", "problem", f"ports are to be published on {named}, which is no IPv4 address", hint, blocks=True
        )
    if needs["namesakes"]:
        what = f"{', '.join(needs['namesakes'])} has the same address in the site"
        hint = "give each host its own `site_address`, by which the others reach it"
        told.say("address", "problem", what, hint, blocks=True)


def _ports(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    if look["ports"] is None:
        return
    free: list[int] = []
    ours: list[int] = []
    for wanted in needs["ports"]:
        holders = [entry for entry in look["ports"] if _collide(wanted, entry)]
        foreign = next((entry for entry in holders if entry["site"] != needs["site"]), None)
        if foreign is None:
            (ours if holders else free).append(wanted["port"])
            continue
        told.say(
            f"port {wanted['port']}",
            "problem",
            f"held by {_holder(foreign)}, and planned for: {wanted['what']}",
            "stop what holds it, or give the plan another port",
            blocks=True,
        )
    parts = [f"{len(free)} free"] if free else []
    parts += [f"{len(ours)} held by this site's containers"] if ours else []
    if parts:
        told.say("ports", "ok", ", ".join(parts))


def _firewall(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    """Tell of a firewall that keeps clients away: the acceptance asks from inside, and does not meet it."""
    firewall = look.get("firewall") or {}
    closed = [port for port in needs["outside"] if port not in (firewall.get("open") or [])]
    if firewall and closed:
        port = closed[0]
        commands = {
            "firewalld": f"firewall-cmd --permanent --add-port={port}/tcp, then --reload",
            "ufw": f"ufw allow {port}/tcp",
        }
        what = f"{firewall['name']} is on, and has no rule that lets clients to port {port}"
        told.say("firewall", "hint", what, f"where clients come from elsewhere: {commands[firewall['name']]}")


def _collide(wanted: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    if wanted["port"] != entry["port"]:
        return False
    addresses = (wanted["address"], entry["address"])
    return addresses[0] == addresses[1] or any(address in WILDCARDS for address in addresses)


def _holder(entry: Mapping[str, Any]) -> str:
    if entry["container"]:
        site = f" of site {entry['site']}" if entry["site"] else ""
        return f"container {entry['container']}{site}"
    if entry["process"]:
        return f"{entry['process']} (process {entry['pid']})"
    return "a process that this user may not see"


def _reach(told: Told, look: Mapping[str, Any], needs: Mapping[str, Any]) -> None:
    answers = {entry["url"]: entry for entry in look["urls"] or []}
    docker = look["docker"] or {}
    missing = [image for image in needs["pulled"] if image not in (docker.get("images") or [])]
    # The engine goes its own ways, which this question did not.
    ways = docker.get("ways") or []
    if ways and not answers.get(needs["registry_url"], {"ok": True})["ok"]:
        told.say("registry", "hint", f"not asked as the engine does, which pulls through {', '.join(ways)}")
    else:
        _reached(told, "registry", needs["registry_url"], answers, "images are built, none is pulled", missing,
                 "set images_registry_prefix to a mirror, or images_mode: build")  # fmt: skip
    for name, path in needs["sources"].items():
        # Once it is in the store, nobody asks for where it came from.
        there = [*(look.get("sources") or []), *(look["models"] or [])]
        if look.get("sources") is not None and name not in there:
            hint = "put the model's folder there, with its config.json, or correct `source`"
            told.say("model", "problem", f"{name}: there is no model in {path}", hint, blocks=True)
    models = [name for name in needs["hub"] if name not in (look["models"] or [])]
    _reached(told, "hub", needs["hub_url"], answers, "no model comes from a hub", models,
             "set model_store_hub_url to a mirror, model_store_proxy_env, or a model's source to a folder")  # fmt: skip


def _reached(
    told: Told, check: str, url: str, answers: Mapping[str, Any], unused: str, missing: list[str], hint: str
) -> None:
    answer = answers.get(url)
    if not url:
        told.say(check, "skipped", unused)
    elif answer is None:
        told.say(check, "skipped", f"{url} was not asked")
    elif answer["ok"]:
        told.say(check, "ok", f"{url} answers")
    elif missing:
        what = f"{url} does not answer ({answer['why']}); missing here: {', '.join(missing)}"
        told.say(check, "problem", what, hint, blocks=True)
    else:
        told.say(check, "hint", f"{url} does not answer ({answer['why']}); nothing is missing here", hint)


def version(text: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version, for comparing."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in found.group().split(".")) if found else ()


Check = Callable[[Told, Mapping[str, Any], Mapping[str, Any]], None]
CHECKS: dict[str, Check] = {
    "os": _system,
    "kernel": _kernel,
    "user": _user,
    "python": _python,
    "memory": _memory,
    "clock": _clock,
    "secure_boot": _secure_boot,
    "docker": _docker,
}
