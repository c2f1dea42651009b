"""What is to be done about a host's NVIDIA driver: found and wanted in, steps and refusals out. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

# PCI device ids: what is below the first (Kepler) no current branch supports; what is below the second is older than
# Turing, and the open modules do not know it; what is above the third (Blackwell), and Grace Hopper, only they know.
MAXWELL, TURING, BLACKWELL, GRACE_HOPPER = 0x1340, 0x1E00, 0x2900, 0x2342
LAST_BRANCH_BEFORE_TURING = 580
UNKNOWN: dict[str, Any] = {"packages": [], "headers": [], "pin": [], "fabric_manager": ""}
ARCHIVE_KEY = "/usr/share/keyrings/cuda-archive-keyring.gpg"  # where the vendor's package with its key puts it


def nvidia_driver_plan(
    state: Mapping[str, Any], gpu: Mapping[str, Any], table: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is to be done on a host, before anything is touched.

    state: of nvidia_driver_state. gpu: of gpu_facts. table: the system's file in vars/, empty for an unknown system.
    wanted: the role's variables (vars/main.yml).
    Keys: problems [{what, hint}], present (version or None), healthy, install, state (for the package
    module: `latest` passes to another branch), reboot (it is foreseen), modules,
    repository {folder, keyring, file, line, components, manager}, stream, lock, before, headers, pin, packages,
    fabric_manager (name or empty).
    """
    known = bool(table)
    source = table[wanted["source"]] if known else {}
    modules, why_not = _modules(gpu, wanted)
    present = _present(state, gpu)
    healthy = bool(present) and _branch(present) == wanted["branch"] and state["module"] == present
    healthy = healthy and not _wrong_kind(state, gpu, wanted, modules)
    names = _names(state, table, source, wanted, modules) if known else UNKNOWN
    there = all(name in state["packages"] for name in names["packages"])
    right = bool(present) and _branch(present) == wanted["branch"] and not _wrong_kind(state, gpu, wanted, modules)
    install = known and bool(wanted["manage"]) and not healthy and not (right and there)
    found = {
        **names,
        "present": present,
        "healthy": healthy,
        "install": install,
        "modules": modules,
        "state": "latest" if present and _branch(present) != wanted["branch"] else "present",
        "reboot": bool(gpu["nouveau"]) or (install and bool(gpu["driver"]["module"])) or _differs(state, gpu),
    }
    return {**found, "problems": _problems(state, gpu, table, source, wanted, found, why_not)}


def nvidia_driver_packed(
    tables: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any], kernels: list[str]
) -> dict[str, Any]:
    """Return what a bundle must hold for a host that cannot be asked, system by system.

    tables: {release: its file in vars/, empty for an unknown system}. kernels: `uname -r` of hosts; without one the
    headers of the release's newest kernel.
    Keys: sets ([{release, names, somewhere (each in one release at least), matching {name: package whose version it
    must have; packed where there is one}, pins, components, sources, keys [{from, at (empty: a package to unpack)}]}]),
    problems [{release, what, hint}].
    """
    sets, problems = [], []
    nothing_seen: dict[str, Any] = {"pci": []}
    modules, _against = _modules(nothing_seen, wanted)
    for release, table in tables.items():
        source = table[wanted["source"]] if table else {}
        asked = {**wanted, "system": release}
        told = _of_the_system(table, source, asked) + (_of_the_repository(source, asked) if table else [])
        problems += [{"release": release, "what": what, "hint": hint} for what, hint in told]
        if not told:
            sets.append({"release": release, **_set(table, source, wanted, modules, kernels)})
    return {"sets": sets, "problems": problems}


def nvidia_driver_outcome(state: Mapping[str, Any], gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left to do once the packages are there.

    Keys: build ([name/version] of DKMS that have no module for the running kernel), log (its make.log, or empty),
    load (nothing is loaded and the module is there), reboot (why the host must be rebooted; empty when it need not).
    """
    running, disk = gpu["driver"]["module"], state["module"]
    mine = [entry for entry in state["dkms"] if entry["kernel"] in ("", state["kernel"])]
    build = [] if disk else list(dict.fromkeys(f"{entry['module']}/{entry['version']}" for entry in mine))
    logs = [entry["log"] for entry in mine if entry["log"]]
    reboot = ""
    if gpu["nouveau"]:
        reboot = "the nouveau driver holds the GPUs, and is left out from the next start on"
    elif _other_kind(state, gpu):
        kinds = {True: "open", False: "proprietary"}
        reboot = (
            f"the running module is the {kinds[gpu['driver']['open']]} one, installed is the {kinds[state['open']]} one"
        )
    elif _differs(state, gpu):
        reboot = f"the running module is {running}, installed is {disk}"
    return {
        "build": build,
        "log": logs[0] if logs and not disk else "",
        "load": bool(disk) and not running and not gpu["nouveau"],
        "reboot": reboot,
    }


def nvidia_driver_loose(state: Mapping[str, Any]) -> list[str]:
    """Return the driver's installed packages that nothing holds."""
    return [
        name
        for name in sorted(state["packages"])
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in state["held"])
    ]


def nvidia_driver_told(problems: list[Mapping[str, str]], heading: str) -> str:
    """Return problems as a message of many lines."""
    return "\n".join([heading, *(f"- {one['what']}\n  Hint: {one['hint']}" for one in problems)])


def nvidia_driver_broken(state: Mapping[str, Any], left: Mapping[str, Any], error: str, step: str) -> str:
    """Return why the driver is not there: a build that failed by its log, else what the package manager said."""
    kernel = state["kernel"]
    if left["log"]:
        return (
            f"the driver's modules could not be built for kernel {kernel}. Hint: {left['log']} on the host says "
            "why; a kernel newer than the driver knows needs a newer driver, or the kernel before it. The next run "
            "builds again"
        )
    if not state["headers"]:
        return (
            f"{step}: not reached, for the headers of the running kernel {kernel} are not to be had ({error}). "
            "Hint: bring the host to the newest kernel of its distribution, reboot it, and run this again"
        )
    hint = " Hint: the repository has no driver of this branch: set nvidia_driver_branch to one that it has"
    return f"{step}: not reached. {error}{hint if 'nvidia-driver-pinning' in error else ''}"


def _differs(state: Mapping[str, Any], gpu: Mapping[str, Any]) -> bool:
    running = gpu["driver"]["module"]
    installed = state["module"] or gpu["driver"]["library"]
    return bool(running and installed and running != installed) or _other_kind(state, gpu)


def _other_kind(state: Mapping[str, Any], gpu: Mapping[str, Any]) -> bool:
    """Say whether the module that runs is open and the one on disk is not, or the reverse."""
    kinds = {gpu["driver"]["open"], state.get("open")}
    return kinds == {True, False}


def _present(state: Mapping[str, Any], gpu: Mapping[str, Any]) -> str | None:
    """Version of the libraries on disk, else of the module on disk."""
    found = gpu["driver"]["library"] or state["module"]
    return str(found) if found else None


def _branch(version: str | None) -> int:
    found = re.match(r"\d+", version or "")
    return int(found.group()) if found else 0


def _ids(gpu: Mapping[str, Any]) -> list[int]:
    return [int(one["device"], 16) for one in gpu["pci"] if re.fullmatch(r"0x[0-9a-fA-F]+", one["device"])]


def _old(gpu: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether a GPU on the bus, or a declared one where none is seen, is older than Turing."""
    ids = _ids(gpu)
    if ids:
        return any(one < TURING for one in ids)
    declared = [device.get("compute_capability") for device in wanted["devices"] if device.get("kind") == "nvidia"]
    return any(_version(one) < (7, 5) for one in declared if one)


def _version(text: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(text)))


def _modules(gpu: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the kind of modules, and what speaks against it."""
    ids, old = _ids(gpu), _old(gpu, wanted)
    new = any(one >= BLACKWELL or one == GRACE_HOPPER for one in ids)
    kind = ("proprietary" if old else "open") if wanted["modules"] == "auto" else str(wanted["modules"])
    against = []
    if kind == "open" and old:
        what = "nvidia_driver_modules is `open`, and a GPU here is older than Turing: the open modules do not know it"
        against.append((what, "set nvidia_driver_modules: proprietary (or auto)"))
    if kind == "proprietary" and new:
        what = "a GPU here is a Blackwell or Grace Hopper: only the open modules know it"
        hint = (
            "set nvidia_driver_modules: open" if not old else "no driver knows it together with one older than Turing"
        )
        against.append((what, hint))
    if old and wanted["branch"] > LAST_BRANCH_BEFORE_TURING:
        what = f"a GPU here is older than Turing, and branch {wanted['branch']} has no support for it"
        against.append((what, f"set nvidia_driver_branch: {LAST_BRANCH_BEFORE_TURING}, the last one that has"))
    if any(one < MAXWELL for one in ids):
        against.append(
            ("a GPU here is older than Maxwell: no branch from 580 on supports it", "leave it out of the site")
        )
    return kind, against


def _wrong_kind(state: Mapping[str, Any], gpu: Mapping[str, Any], wanted: Mapping[str, Any], modules: str) -> bool:
    """Say whether the modules are of a kind that is not the wanted one; for `auto` any will do that knows the GPUs.

    Those on disk count: what is loaded may be about to change, or does not load because it does not know the GPUs.
    """
    opened = gpu["driver"]["open"] if state.get("open") is None else state["open"]
    if opened is None:
        return False
    if wanted["modules"] == "auto" and not opened:
        return any(one >= BLACKWELL or one == GRACE_HOPPER for one in _ids(gpu))
    return bool(opened) != (modules == "open")


def _names(
    state: Mapping[str, Any],
    table: Mapping[str, Any],
    source: Mapping[str, Any],
    wanted: Mapping[str, Any],
    modules: str,
) -> dict[str, Any]:
    """Return repository and packages with all that stands in braces filled in."""
    words = {
        "branch": wanted["branch"],
        "kernel": state["kernel"],
        "architecture": table["architectures"].get(wanted["architecture"], wanted["architecture"]),
    }

    def filled(texts: Any) -> list[str]:
        return [str(text).format(**words) for text in texts]

    folder = source["folder"].format(**words)
    apt = folder and table["manager"] == "apt"
    prebuilt = bool(wanted["prebuilt"])
    known = source["prebuilt"][modules] if prebuilt else source[modules]
    age = "before_580" if wanted["branch"] < 580 else "from_580"
    return {
        "repository": {
            "manager": table["manager"],
            "folder": folder,
            "keyring": source["keyring"],
            "file": source["file"].format(**words),
            "line": f"deb [signed-by={ARCHIVE_KEY}] {wanted['repository']}/{folder}/ /" if apt else "",
            "components": source["components"],
        },
        "stream": source["stream"][modules].format(**words),
        "lock": filled(source["lock"]),
        "before": filled(source["before"]),
        "headers": filled(table["headers"]) if wanted["headers"] and not prebuilt else [],
        "pin": filled(source["pin"]),
        "packages": list(wanted["packages"]) or filled(known),
        "fabric_manager": source["fabric_manager"][age].format(**words) if state["nvswitch"] else "",
    }


def _set(
    table: Mapping[str, Any], source: Mapping[str, Any], wanted: Mapping[str, Any], modules: str, kernels: list[str]
) -> dict[str, Any]:
    """Return one system's packages; its NVSwitches are not known here, so their manager comes along."""
    each = [_names({"kernel": kernel, "nvswitch": True}, table, source, wanted, modules) for kernel in kernels or [""]]
    found, repository = each[0], each[0]["repository"]
    newest = table["headers_newest"][wanted["architecture"]] if found["headers"] and not kernels else []
    url = f"{wanted['repository']}/{repository['folder']}/{repository['keyring']}"
    return {
        "names": [*found["pin"], *found["packages"], *newest],
        "somewhere": [name for one in each for name in one["headers"]] if kernels else [],
        "matching": {found["fabric_manager"]: found["packages"][0]} if found["fabric_manager"] else {},
        "pins": found["pin"],
        "components": repository["components"],
        "sources": [repository["line"]] if repository["line"] else [],
        "keys": [{"from": wanted["keyring"] or url, "at": ""}] if repository["line"] else [],
    }


def _problems(
    state: Mapping[str, Any],
    gpu: Mapping[str, Any],
    table: Mapping[str, Any],
    source: Mapping[str, Any],
    wanted: Mapping[str, Any],
    found: Mapping[str, Any],
    why_not: list[tuple[str, str]],
) -> list[dict[str, str]]:
    """Return everything because of which nothing may be touched."""
    told: list[tuple[str, str]] = []
    if not gpu["pci"]:
        told.append(("there is no NVIDIA GPU on the bus", "see `lspci -d 10de:`, or take the host out of `serving`"))
    if wanted["manage"]:
        told += _of_the_system(table, source, wanted)
        told += why_not
        branch = wanted["branch"]
    else:
        branch = _branch(found["present"])
        if not found["present"]:
            told.append(
                ("there is no driver, and nvidia_driver_manage is false", "install one, or leave it to deployctl")
            )
    if branch and branch < wanted["branch_min"]:
        what = f"a driver of branch {branch} is too old for the CUDA of the images, which needs {wanted['branch_min']}"
        hint = "set nvidia_driver_branch to that or a newer one" if wanted["manage"] else "install a newer one"
        told.append((what, f"{hint}; with images of an older CUDA, set nvidia_driver_branch_min"))
    if found["install"]:
        # Where the branch is locked by versions, the lock is ours as likely as not, and dnf itself says what it keeps.
        told += [*([] if source["lock"] else _of_holds(state)), *_of_the_packages(state, wanted, found)]
        told += _of_the_repository(source, wanted)
    if wanted["manage"] and not found["healthy"]:
        told += _of_secure_boot(state, wanted)
    return [{"what": what, "hint": hint} for what, hint in told]


def _of_the_system(
    table: Mapping[str, Any], source: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[tuple[str, str]]:
    if not table:
        hint = "install a driver by hand and set nvidia_driver_manage: false"
        return [(f"{wanted['system']} is not a system that this role knows the driver of", hint)]
    told = []
    if wanted["architecture"] not in table["architectures"]:
        told.append((f"there is no driver for {wanted['architecture']}", "take the host out of `serving`"))
    if source["branches"] and wanted["branch"] not in source["branches"]:
        offered = [str(branch) for branch in source["branches"] if branch]
        what = f"{wanted['system']} itself has no driver of branch {wanted['branch']}"
        hint = f"set nvidia_driver_branch to {' or '.join(offered)}, or " if offered else ""
        told.append((what, f"{hint}set nvidia_driver_source: vendor"))
    if wanted["prebuilt"] and not any(source["prebuilt"].values()):
        what = f"{wanted['source']} packages of {wanted['system']} have no signed, ready-built modules"
        told.append((what, "set nvidia_driver_prebuilt: false"))
    return told


def _of_the_repository(source: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not wanted["public"] or wanted["branch"] >= source["first"]:
        return []
    what = (
        f"NVIDIA's repository of {wanted['system']} begins with branch {source['first']} and has no {wanted['branch']}"
    )
    hint = "set nvidia_driver_branch: 595, or nvidia_driver_repository_url to a mirror that has it; for GPUs older than"
    return [(what, f"{hint} Turing, which need {LAST_BRANCH_BEFORE_TURING}, take Ubuntu or Debian 12")]


def _of_holds(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    foreign = sorted(
        name
        for name in state["packages"]
        if name not in state["held_by_us"] and any(fnmatch.fnmatchcase(name, held) for held in state["held"])
    )
    if not foreign:
        return []
    what = f"packages that have to change are held, and not by deployctl: {', '.join(foreign)}"
    return [(what, f"apt-mark unhold {' '.join(foreign)} (dnf versionlock delete), or nvidia_driver_manage: false")]


def _of_the_packages(
    state: Mapping[str, Any], wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> list[tuple[str, str]]:
    told = []
    newer = state["packages"] and _branch(found["present"]) > wanted["branch"]
    if newer:
        what = f"driver {found['present']} is of a newer branch than {wanted['branch']}, and packages cannot go back"
        told.append((what, "remove its packages, or set nvidia_driver_branch to that one; then run this again"))
    if found["present"] and not state["packages"]:
        what = (
            f"driver {found['present']} was installed past the package manager, and branch {wanted['branch']} is wanted"
        )
        told.append((what, "remove it (nvidia-uninstall), or set nvidia_driver_manage: false"))
    return told


def _of_secure_boot(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, str]]:
    if state["secure_boot"] != "enabled" or wanted["prebuilt"] or state["key_enrolled"]:
        return []
    if str(wanted["system"]).startswith("Ubuntu"):
        # There DKMS signs with the key of shim-signed.
        key = "`update-secureboot-policy --new-key`, `mokutil --import /var/lib/shim-signed/mok/MOK.der`"
        other = "set nvidia_driver_source: distribution and nvidia_driver_prebuilt: true"
    else:
        key = "install dkms, `dkms generate_mok`, `mokutil --import /var/lib/dkms/mok.pub`"
        other = "sign and load a driver of your own (nvidia_driver_manage: false)"
    hint = (
        f"enrol a key: {key}, then confirm at the console during the next start; or {other}; or switch Secure Boot off"
    )
    return [("Secure Boot is on, and the kernel would refuse a module that is built here", hint)]


class FilterModule:
    """Makes them known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "nvidia_driver_plan": nvidia_driver_plan,
            "nvidia_driver_packed": nvidia_driver_packed,
            "nvidia_driver_outcome": nvidia_driver_outcome,
            "nvidia_driver_loose": nvidia_driver_loose,
            "nvidia_driver_told": nvidia_driver_told,
            "nvidia_driver_broken": nvidia_driver_broken,
        }
