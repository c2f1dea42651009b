#!/usr/bin/python
"""Say what leads from the engine that is there to the wanted version: packages to install, a restart, or why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils import host_parts as parts
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: docker_engine_plan
short_description: What leads from the engine that is there to the wanted version
description:
  - Compares the version of the engine's package, as the package manager names it, and asks the host's package sources
    for the wanted one. Apt's lists are fetched into a folder that is gone afterwards, dnf keeps its own cache.
  - Changes nothing and never fails for what it finds. Sources that a bundle has set up (APT_CONFIG) are not asked.
options:
  version:
    description: The wanted version, or how it begins, such as 28.3.
    type: str
    required: true
  packages:
    description: Packages that are installed where no engine is.
    type: list
    elements: str
    required: true
  pid_file:
    description: File in which the running engine has written its process id.
    type: path
    required: true
author:
  - deployctl
"""

# Built from one source, they have one version; what else an engine needs, it asks for itself.
FAMILIES = {
    "docker-ce": ["docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"],
    "docker.io": ["docker.io", "docker-cli"],
    "moby-engine": ["moby-engine", "moby-cli"],
}
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN = 8


def bare(version: str) -> str:
    """A package's version without its epoch, which the packages of one engine do not share."""
    return re.sub(r"^\d+:", "", version)


def fits(version: str, wanted: str) -> bool:
    """Whether a package's version is the wanted one, or begins with it: 28.3.3-1 with 28.3, 28.30 does not."""
    found, asked = (version, wanted) if ":" in wanted else (bare(version), wanted)
    return found.startswith(asked) and not re.match(r"[0-9]", found[len(asked) :])


def order(version: str) -> list:
    """A key by which versions are sorted: numbers as numbers, and a tilde before everything."""
    words = re.findall(r"\d+|~|[^\d~]+", bare(version))
    return [(-1, 0, "") if w == "~" else (1, int(w), "") if w.isdigit() else (2, 0, w) for w in words] + [(0, 0, "")]


def madison(text: str) -> dict:
    """{name: [versions, newest first]} of lines `name | version | source` of apt-cache madison."""
    found: dict = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) == 3 and words[1] not in found.setdefault(words[0], []):
            found[words[0]].append(words[1])
    return found


def plan(found: dict, wanted: str, packages: list) -> dict:
    """What is to be done.

    found: of look(). wanted: version, or how it begins. packages: those that are installed where no engine is.
    Keys: there (whether an engine is), present (version of its package, or empty), target (version that comes, or
    empty), install (packages, with versions where they matter, as the package manager takes them), restart (the engine
    that runs is not the installed one), change, problems [{what, hint}].
    """
    name = found["package"] if found["program"] else engine_of(packages)
    present = found["installed"].get(name, "")
    settled = bool(present) and fits(present, wanted)
    offered = found["candidates"].get(name, [])
    target = "" if settled else next((version for version in offered if fits(version, wanted)), "")
    family = FAMILIES.get(name, [name])
    others = [] if found["program"] else packages
    names = [one for one in family if one == name or one in found["installed"] or one in others]
    versions = {one: same(found["candidates"].get(one, []), target) for one in names} if target else {}
    sign = "-" if found["manager"] == "dnf" else "="
    pins = [f"{one}{sign}{version}" for one, version in versions.items() if version]
    answer = {
        "there": bool(found["program"]),
        "present": present,
        "target": target,
        "install": [*pins, *(one for one in others if not versions.get(one))],
        "restart": bool(found["stale"]),
        "problems": problems(found, name, wanted, settled, target),
    }
    return {**answer, "change": answer["there"] and not answer["problems"] and (not settled or answer["restart"])}


def engine_of(packages: list) -> str:
    """The engine among the packages; empty where none is known."""
    return next((name for name in packages if name in FAMILIES), "")


def same(versions: list, target: str) -> str:
    """The version that goes with the engine's; empty where the sources have none."""
    return next((version for version in versions if bare(version) == bare(target)), "")


def problems(found: dict, name: str, wanted: str, settled: bool, target: str) -> list:
    """What speaks against it: [{what, hint}]."""
    keep = "leave docker_version empty to keep the engine as it is"
    if not name:
        unknown = f"none of docker_packages is an engine known here ({', '.join(FAMILIES)})"
        what = f"the engine {found['program']} belongs to no package" if found["program"] else unknown
        return [{"what": what, "hint": f"replace it by the packages of your distribution or of Docker, or {keep}"}]
    told = []
    if not settled and not target:
        offered = found["candidates"].get(name, [])
        has = f"they have {', '.join(offered[:SHOWN])}" if offered else "they have none"
        what = f"no package source of this host has {name} {wanted}: {has}"
        what += f" ({found['complaint']})" if found["complaint"] else ""
        told.append({"what": what, "hint": f"name one that they have, add a source that has it, or {keep}"})
    held = [one for one in FAMILIES.get(name, [name]) if one in found["held"]]
    if held and not settled:
        names = " ".join(held)
        told.append({"what": f"held, and not by deployctl: {names}", "hint": f"apt-mark unhold {names}, or {keep}"})
    return told


def run(*words: str, timeout: int = 60) -> tuple:
    """Output and complaints of a program; empty where it is not there."""
    env = {**os.environ, "LC_ALL": "C", "PATH": PATH}
    env.pop("APT_CONFIG", None)
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, env=env
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, done.stderr


def engine(pid_file: str) -> tuple:
    """Path of the engine's program, that of the running one first, and whether that one is no longer on the disk."""
    try:
        program = str(Path(f"/proc/{int(Path(pid_file).read_text(encoding='utf-8'))}/exe").readlink())
    except (OSError, ValueError):
        return shutil.which("dockerd", path=PATH) or "", False
    gone = " (deleted)"
    # A process id that was used again is another program's.
    if Path(program.replace(gone, "")).name != "dockerd":
        return shutil.which("dockerd", path=PATH) or "", False
    return program.replace(gone, ""), program.endswith(gone)


def owner(program: str, manager: str) -> str:
    """Name of the package that has brought a program; empty where none has."""
    if manager == "apt":
        return run("dpkg-query", "--search", program)[0].partition(":")[0].strip()
    told = run("rpm", "-qf", "--qf", "%{NAME}", program)[0].strip()
    return told if told and " " not in told else ""


def installed(manager: str, names: list) -> str:
    """Lines `name version state` of these packages, as far as they are installed."""
    if manager == "apt":
        return run("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Abbrev}\n", *names)[0]
    # An epoch that a package has not is told as 0 by dnf, and as (none) by rpm.
    return run("rpm", "-qa", "--qf", "%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n", *names)[0]


def offers(manager: str, names: list) -> tuple:
    """{name: [versions, newest first]} of the host's package sources, and what went wrong with them."""
    if manager == "dnf":
        form = "%{name} | %{epoch}:%{version}-%{release} | -\n"
        told, wrong = run("dnf", "--quiet", "repoquery", "--showduplicates", "--qf", form, *names, timeout=300)
        found = {name: sorted(versions, key=order, reverse=True) for name, versions in madison(told).items()}
        return found, (wrong.strip().splitlines() or [""])[-1]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "partial").mkdir()
        # As root apt reads them as another user, who must see them.
        Path(folder).chmod(0o755)
        apart = ["-o", f"Dir::State::Lists={folder}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        wrong = run("apt-get", "--quiet=2", *apart, "update", timeout=300)[1]
        lines = [line for line in wrong.splitlines() if line.startswith(("E:", "W:"))]
        return madison(run("apt-cache", *apart, "madison", *names)[0]), (lines or [""])[0][:300]


def look(version: str, packages: list, pid_file: str) -> dict:
    """The engine and the sources: manager, program, package, installed, held, stale, candidates, complaint."""
    manager = "apt" if shutil.which("dpkg-query", path=PATH) else "dnf" if shutil.which("rpm", path=PATH) else ""
    program, stale = engine(pid_file)
    package = owner(program, manager) if program and manager else ""
    name = package if program else engine_of(packages)
    names = FAMILIES.get(name, [name] if name else [])
    listed = installed(manager, names) if manager and names else ""
    # What was unpacked and not set up, by a run that was stopped, does not count as installed.
    found = parts.packages(listed)
    settled = name in found and fits(found[name], version)
    candidates, complaint = offers(manager, names) if manager and names and not settled else ({}, "")
    return {
        "manager": manager,
        "program": program,
        "package": package,
        "installed": found,
        "held": parts.held(listed),
        "stale": stale,
        "candidates": candidates,
        "complaint": complaint,
    }


def main() -> None:
    """Look, and tell under `plan`."""
    arguments = {
        "version": {"type": "str", "required": True},
        "packages": {"type": "list", "elements": "str", "required": True},
        "pid_file": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    wanted, packages = module.params["version"], module.params["packages"]
    module.exit_json(changed=False, plan=plan(look(wanted, packages, module.params["pid_file"]), wanted, packages))


if __name__ == "__main__":
    main()
