"""The site as data: groups, each host's variables with where they come from, what counts for all, models. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy_cli.errors import Problem
from deploy_cli.init import choose, gpus
from deploy_cli.init.gpus import Holdings
from deploy_cli.init.hosts import Found
from deploy_cli.init.targets import Wanted
from deploy_cli.plan import SiteInput, capability, make_plan
from deploy_cli.plan.shapes import GROUPS

KEY = (
    "{{ lookup('ansible.builtin.password', inventory_dir ~ '/../.secrets/%s/api_key', length=40, "
    "chars=['ascii_letters', 'digits']) }}"
)
SHARED_ADDRESS = (
    "its own address is also that of another host of the site",
    "write `site_address`, the name or address by which the others reach it",
)
HOLDS_BACK = (
    "decides which models all GPUs get: others of the site could hold larger ones",
    "take it out of `devices` and choose larger models, or see that these fit it",
)
STORE_LEAST_GIB = 20  # less free space than this is no place for models


@dataclass(frozen=True)
class Value:
    """A variable and where its value comes from, for the comment beside it."""

    name: str
    value: Any
    source: str = ""


@dataclass
class Site:
    """All that is written. values: each host's own variables; shared: those of the site's group."""

    wanted: Wanted
    hosts: list[Found]
    groups: dict[str, list[str]]
    values: dict[str, list[Value]]
    holdings: dict[str, Holdings]
    shared: list[Value]
    models: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""
    warnings: list[Problem] = field(default_factory=list)

    def variables(self) -> dict[str, dict[str, Any]]:
        """Every host's variables, those of the group among them."""
        group = {value.name: value.value for value in self.shared} | {"models": self.models}
        return {name: {**group, **{v.name: v.value for v in own}} for name, own in self.values.items()}


def make(
    wanted: Wanted, hosts: Sequence[Found], specs: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[Site, list[Problem]]:
    """Return the site and what the planner finds wrong with it (nothing, if hosts and code are in order).

    specs, defaults: of the roles, as collect.read_roles returns them.
    """
    held = {host.name: gpus.holdings(host) for host in hosts}
    groups, warnings = _groups(wanted, hosts)
    kept = [host for host in hosts if any(host.name in group for group in groups.values())]
    site = Site(wanted, list(kept), groups, {}, {host.name: held[host.name] for host in kept}, [])
    for host in kept:
        broken = host.hardware.get("errors") or {}
        hint = "what follows from it is left out; look there by hand"
        warnings += [
            Problem(host.target.word, f"{k} could not be read: {v}", hint, "warning") for k, v in broken.items()
        ]
    shared = _shared_addresses(kept)
    warnings += [Problem(host.target.word, *SHARED_ADDRESS, "warning") for host in shared]
    reached = [host for host in kept if host not in shared and (not host.is_local or len(kept) > 1)]
    for host in kept:
        serving = host.name in groups["serving"]
        site.values[host.name] = _values(host, held[host.name] if serving else None, addressed=host in reached)
        told = held[host.name].warnings if serving else []
        warnings += [Problem(host.target.word, what, hint, "warning") for what, hint in told]
    devices = [device for name in groups["serving"] for device in held[name].devices]
    site.shared = _shared(wanted, kept, devices)

    def wrong(models: list[dict[str, Any]]) -> list[Problem]:
        site.models = models
        return _refusals(site, specs, defaults)

    site.models, site.why, problems = choose.first_accepted(devices, wrong)
    words = {host.name: host.target.word for host in kept}
    for name in groups["serving"]:
        small = [device for device in held[name].devices if device in choose.holding_back(devices)]
        warnings += [
            Problem(words[name], f"{choose.told(device)} {HOLDS_BACK[0]}", HOLDS_BACK[1], "warning") for device in small
        ]
    site.warnings = warnings
    return site, problems


def _groups(wanted: Wanted, hosts: Sequence[Found]) -> tuple[dict[str, list[str]], list[Problem]]:
    """Sort the hosts: who has GPUs serves; where nobody has, all do. What has no part is told."""
    named = {host.target.word: host for host in hosts}
    gateway, telemetry = named[wanted.gateway].name, named[wanted.telemetry].name
    candidates = [named[word] for word in wanted.serving]
    able = [host for host in candidates if gpus.has_gpus(host)]
    serving = [host.name for host in able or candidates]
    groups = {"serving": serving, "gateway": [gateway], "telemetry": [telemetry]}
    idle = [host for host in candidates if host.name not in (*serving, gateway, telemetry)]
    hint = "it is in no group; a host without a GPU can be the gateway (--gateway) or take the traces (--telemetry)"
    return groups, [
        Problem(h.target.word, "it has no GPU and others have: it is left out", hint, "warning") for h in idle
    ]


def _shared_addresses(hosts: Sequence[Found]) -> list[Found]:
    """Return the hosts whose own address is another's too, as behind the address translation of virtual machines."""
    known = [(host, host.address()[0]) for host in hosts if not host.is_local]
    addresses = [address for _host, address in known]
    return [host for host, address in known if address and addresses.count(address) > 1]


def _values(host: Found, held: Holdings | None, *, addressed: bool) -> list[Value]:
    """Return a host's own variables.

    held: what it serves on; None for a host that does not serve. addressed: whether others reach it under an address
    that is its alone.
    """
    if host.is_local:
        found = [
            Value("ansible_connection", "local", "this machine itself"),
            Value("ansible_python_interpreter", "{{ ansible_playbook_python }}"),
        ]
    else:
        found = [Value("ansible_host", host.target.name, "as given to init; an alias of ~/.ssh/config stays one")]
        if host.target.user:
            found.append(Value("ansible_user", host.target.user, "as given to init"))
    if not host.root:
        user = str((host.hardware.get("user") or {}).get("name") or "the user who logs in")
        source = f"{user} is not root; sudo was tried. -K where it wants a password"
        found.append(Value("ansible_become", True, source))
    address, source = host.address()
    if address and addressed:
        found.append(Value("site_address", address, f"how other hosts reach it: {source}"))
    if held is not None:
        found.append(Value("devices", held.devices, "; ".join(held.lines[:1]) if len(held.lines) == 1 else "see above"))
        found += _store(host)
    return found


def _store(host: Found) -> list[Value]:
    """Return where models and vLLM's cache lie, if a mount point is better than the roles' own folders."""
    best = next((mount for mount in host.mounts() if float(mount["free_gib"]) >= STORE_LEAST_GIB), None)
    if best is None or best["path"] == "/":
        return []
    path = str(best["path"]).rstrip("/")
    kind = "NVMe" if best["drives"] and all(drive["nvme"] for drive in best["drives"]) else str(best["kind"])
    source = f"{kind}, {best['free_gib']:g} of {best['total_gib']:g} GiB free at {path}"
    return [
        Value("model_store_dir", f"{path}/models", source),
        Value("vllm_model_store_dir", "{{ model_store_dir }}", "the same folder, as the engines see it"),
        Value("vllm_cache_dir", f"{path}/vllm-cache", "what vLLM compiles, beside the models"),
    ]


def _shared(wanted: Wanted, hosts: Sequence[Found], devices: Sequence[Mapping[str, Any]]) -> list[Value]:
    found = []
    if any(device["kind"] == "nvidia" for device in devices):
        found.append(Value("images_mode", "pull", "upstream's images; images_registry_prefix names a mirror"))
        if old := gpus.before_turing(devices):
            why = f"the last one whose image holds code for compute capability {old}"
            found.append(Value("images_vllm_version", capability.LAST_OF_CUDA_12, why))
    if all(host.is_local for host in hosts):
        found.append(Value("haproxy_bind_address", "127.0.0.1", "only this machine; leave it out to listen everywhere"))
    keys = [{"id": "everyone", "key": f"sk-{KEY % wanted.group}"}]
    found.append(Value("haproxy_api_keys", keys, "made on the first run and kept outside of git; better: a vault"))
    return found


def _refusals(site: Site, specs: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Problem]:
    """Ask the planner, as `deployctl plan` will."""
    groups = {**site.groups, site.wanted.group: list(site.values)}
    outcome = make_plan(
        SiteInput(
            inventory=f"{site.wanted.site}.yml",
            site=site.wanted.group,
            groups={name: groups[name] for name in (*GROUPS, site.wanted.group)},
            hosts=site.variables(),
            specs=specs,
            defaults=defaults,
        )
    )
    return [problem for problem in outcome if problem.severity == "error"] if isinstance(outcome, list) else []
