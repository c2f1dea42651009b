"""From Ansible's variables to a SiteInput: the only part of the planner that knows Ansible.

Values keep the place they were written at as long as they are Ansible's own objects (ansible-core 2.19 tags them with
it); where an Ansible does not, problems are told by host and key instead of file and line.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy_cli.errors import Problem
from deploy_cli.plan import schema, sources, specs
from deploy_cli.plan.shapes import GROUPS, KeyPath, Placed, SiteInput, Unresolved
from deploy_cli.plan.wording import ENCRYPTED, VAULT_HINT

# Defaults the planner itself reads; everything else in roles/*/defaults is the roles' business.
READ_DEFAULTS = re.compile(
    r"(haproxy|jaeger)_(\w+_)?port|haproxy_bind_address|haproxy_api_keys|haproxy_config_dir|vllm_port_(base|range)|"
    r"vllm_shutdown_timeout_seconds|images_vllm_version"
)
_CONNECTION = (
    *("ansible_connection", "ansible_host", "ansible_port"),
    *("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args"),
)
_GIVEN = re.compile(r"/env/extra-vars-\d+\.yml$")  # what stood on the command line; the file is gone when this is told
_DEEPEST = 40
_UNREAD = (sources.UNREADABLE, ENCRYPTED)
_NEEDS_FACTS = "it needs facts of a host, and the plan touches none"
_UNDEFINED = re.compile(r"'[\w.\[\]']{1,80}' is undefined|object of type '[\w. ]+' has no attribute '\w+'")


def from_ansible(
    task_vars: Mapping[str, Any], loader: Any, roles: Path, current: Any = None, gpus: Any = None
) -> SiteInput:
    """Collect what the planner may know. What cannot be read or rendered becomes a Problem, never an exception."""
    hostvars = task_vars["hostvars"]
    groups = {str(name): [str(h) for h in hosts] for name, hosts in task_vars["groups"].items()}
    inventories = [str(source) for source in task_vars.get("ansible_inventory_sources") or []]
    parents = _parents(hostvars)
    site = site_group(parents)
    members = list(dict.fromkeys(h for g in (*GROUPS, site) for h in groups.get(g, ())))
    own_groups = [g for g, hosts in groups.items() if g == site or set(hosts) & set(members)]
    problems = sources.scan(inventories, own_groups, members, str(task_vars.get("playbook_dir", "")))
    known_specs, defaults = read_roles(roles, loader)
    raw = {host: _raw(hostvars, host, problems) for host in members}
    read: dict[str, _Rendered] = {}
    for host in members or [""]:
        scope = {**defaults, **raw.get(host, {}), "hostvars": hostvars}
        read[host] = _Rendered(_wanted(raw.get(host, {}), known_specs), scope, loader)
        read.setdefault("", _Rendered({n: v for n, v in defaults.items() if READ_DEFAULTS.fullmatch(n)}, scope, loader))
    return SiteInput(
        inventory=", ".join(sources.shown_path(Path(i)) for i in inventories),
        site=site,
        groups=groups,
        parents=parents,
        hosts={host: read[host].plain for host in members},
        specs=known_specs,
        defaults=read[""].plain if members else {},
        nullable=frozenset(name for name, value in defaults.items() if value is None),
        filled=frozenset(name for name, value in defaults.items() if value and isinstance(value, str)),
        origin=lambda host, path: origin_of(raw.get(host, {}), read[host].tagged, path) if host in read else None,
        exists=_there,
        is_folder=os.path.isdir,
        base=str(Path(inventories[0]).absolute().parent) if inventories else "",
        problems=problems,
        unreadable=any(p.what.startswith(_UNREAD) for p in problems),
        current=_current(current),
        vouched=gpus is not None,
        gpus={str(host): plain(facts) for host, facts in (gpus or {}).items()},
    )


def _there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return True  # another user's: the roles work as root


def _wanted(raw: Mapping[str, Any], known_specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The variables that deployctl reads, and (without their values) those whose name looks like a mistake."""
    options = {name for role in known_specs.values() for name in role}
    wanted = {}
    for name, value in raw.items():
        if name in options or name in schema.SITE or name in _CONNECTION:
            wanted[name] = value
        elif specs.unknown_name(name, known_specs, schema.SITE):
            wanted[name] = None
    return wanted


def _raw(hostvars: Any, host: str, problems: list[Problem]) -> Mapping[str, Any]:
    """A host's variables as written; a file that Ansible cannot read becomes a Problem, once."""
    try:
        found: Mapping[str, Any] = hostvars.raw_get(host)
    except Exception as error:  # one of several exceptions of Ansible, all about a file beside the inventory
        if not any(p.what.startswith(_UNREAD) for p in problems):
            problems.append(_fault(error, host))
        return {}
    return found


def _fault(error: Exception, host: str) -> Problem:
    """Say which file Ansible could not read, and why; the place is told by the error or by one of its causes."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    objects = [found for one in chain if (found := getattr(one, "obj", None)) is not None]
    places = [place for one in objects if (place := _tag_place(one) or _tag(one))]
    where = _shown(places[0]) if places else host
    text = " ".join(str(error).split())[:200]
    if "vault" in text.lower() or "decrypt" in text.lower():
        return Problem(where, ENCRYPTED, VAULT_HINT)
    reason = text.removeprefix("YAML parsing failed: ")
    return Problem(where, f"{sources.UNREADABLE} that Ansible takes: {reason}", "see this line and the one above")


def read_roles(folder: Path, loader: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Options of every role's argument spec, by role; and all defaults and private variables, not yet rendered."""
    found: dict[str, dict[str, Any]] = {}
    defaults: dict[str, Any] = {}
    for role in sorted(p for p in folder.iterdir() if p.is_dir()):
        path = role / "meta" / "argument_specs.yml"
        if path.is_file():
            entries = (_load(path, loader) or {}).get("argument_specs") or {}
            found[role.name] = {n: o for entry in entries.values() for n, o in (entry.get("options") or {}).items()}
        for part in ("vars", "defaults"):
            path = role / part / "main.yml"
            if path.is_file():
                defaults |= _load(path, loader) or {}
    return found, defaults


def _load(path: Path, loader: Any) -> Any:
    return loader.load_from_file(str(path), cache="none", trusted_as_template=True)


def _parents(hostvars: Any) -> dict[str, list[str]]:
    """The groups right above each of the three, without `all`."""
    tree = getattr(getattr(hostvars, "_inventory", None), "groups", {})
    return {
        name: sorted(str(p.name) for p in tree[name].parent_groups if p.name != "all")
        for name in GROUPS
        if name in tree
    }


def site_group(parents: Mapping[str, list[str]]) -> str:
    """The group above `serving` (else above the other two); empty when none of them has one parent alone."""
    return next((above[0] for above in parents.values() if len(above) == 1), "")


class _Rendered:
    """A host's variables, rendered: `plain` without Ansible's types, `tagged` with what knows its place."""

    def __init__(self, values: Mapping[str, Any], scope: Mapping[str, Any], loader: Any) -> None:
        """Render every value; what cannot be rendered stands as Unresolved in `plain`."""
        from ansible.template import Templar

        templar = Templar(loader=loader, variables=dict(scope))
        self.plain: dict[str, Any] = {}
        self.tagged: dict[str, Any] = {}
        for name, value in values.items():
            try:
                self.tagged[name] = templar.template(value)
                self.plain[str(name)] = plain(self.tagged[name])
            except Exception:  # whatever a template or lookup raises: find out below which part it was
                self.tagged[name] = value
                self.plain[str(name)] = _piecewise(value, templar)


def _piecewise(value: Any, templar: Any, depth: int = 0) -> Any:
    """Render part by part, so that only what cannot be rendered is Unresolved."""
    if depth > _DEEPEST:
        return Unresolved("it is nested too deeply")
    if isinstance(value, Mapping):
        return {plain(k): _piecewise(v, templar, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_piecewise(v, templar, depth + 1) for v in value]
    try:
        return plain(templar.template(value))
    except Exception as error:
        facts = isinstance(value, str) and "ansible_facts" in value
        return Unresolved(_NEEDS_FACTS if facts else _reason(error), facts)


def _reason(error: Exception) -> str:
    """Why a template failed, in words that hold no value: a message of Ansible may quote one."""
    text = str(error)
    if found := _UNDEFINED.search(text):
        return found[0]
    if "vault" in text.lower() or "decrypt" in text.lower():
        return ENCRYPTED
    if found := re.search(r"lookup plugin '[\w.]+'", text):
        return f"the {found[0]} failed"
    if "Syntax error in template" in text:
        return "its template is not well formed"
    return "its template fails"


def plain(value: Any, depth: int = 0) -> Any:
    """A value without Ansible's own types: mapping, list, text, number, true/false or None; nothing else."""
    if depth > _DEEPEST:
        return Unresolved("it is nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v, depth + 1) for v in value]
    return "".join(str(value))  # also dates, bytes, infinities: text that the schema then refuses where it matters


def origin_of(raw: Mapping[str, Any], tagged: Mapping[str, Any], path: KeyPath) -> str | None:
    """`file:line` of the key or value at a path, or None where Ansible does not know it."""
    for values in (tagged, raw):
        holder: Any = values
        for step in path[:-1]:
            try:
                holder = holder[step]
            except (KeyError, IndexError, TypeError):
                holder = None
                break
        place = _place_in(holder, path[-1])
        if place:
            return place
    return None


def _place_in(holder: Any, step: str | int) -> str | None:
    """Place of one entry of a mapping or list: the line of its key, when key and value stand in one file."""
    if isinstance(holder, Mapping) and step in holder:
        key = _tag(next((k for k in holder if k == step), None))
        value = _tag(holder[step])
        if key and (not value or key[0] == value[0]):
            return _shown(key)
        return _shown(value) if value else None
    if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
        found = _tag(holder[step])
        return _shown(found) if found else None
    return None


def _tag(value: Any) -> tuple[str, int | None] | None:
    """(file, line) that Ansible has tagged a value with; None where it has not, or where it has no such tags."""
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return None
    return _tag_place(Origin.get_tag(value))


def _tag_place(tag: Any) -> tuple[str, int | None] | None:
    if not hasattr(tag, "line_num"):
        return None
    return (tag.path, tag.line_num) if tag.path else (str(tag.description).strip("<>"), None)


def _shown(place: tuple[str, int | None]) -> str:
    name, line = place
    if not name.startswith("/"):
        return name
    if _GIVEN.search(name):
        return "-e on the command line"
    return sources.shown_path(Path(name)) + (f":{line}" if line else "")


def _current(given: Any) -> dict[str, Placed]:
    """What runs now, from the task's argument; entries that do not look like a placement are left out."""
    found = {}
    for name, entry in given.items() if isinstance(given, Mapping) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("devices"), list) and entry.get("host"):
            port = entry.get("port")
            found[str(name)] = Placed(str(entry["host"]), tuple(entry["devices"]), int(port) if port else None)
    return found
