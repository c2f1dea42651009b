"""The plan: an inventory as data in, which instance runs where out, or every problem found."""

import math
from collections.abc import Mapping
from typing import Any

from deploy_cli.errors import Problem
from deploy_cli.plan import capability, engine_args, hardware, hosts, memory, models, placement, ports, variables
from deploy_cli.plan.findings import Findings
from deploy_cli.plan.placement import Seat
from deploy_cli.plan.shapes import Device, Instance, Model, Plan, SiteInput

LOOPBACK = "127.0.0.1"


def make_plan(site: SiteInput) -> Plan | list[Problem]:
    """Plan a site. Opens nothing, asks nobody; equal input gives an equal plan.

    Returns the Plan, or, when anything forbids one, all problems (errors and warnings) at once.
    """
    out = Findings(site)
    if site.unreadable:
        return out.in_order()
    variables.check_groups(site, out)
    variables.check_parents(site, out)
    if not site.vouched:
        variables.check_variables(site, out)
    hosts.check(site, out)
    variables.check_keys(site, out)
    variables.check_grace(site, out)
    versions = vllm_versions(site)
    _check_versions(site, versions, out)
    if not site.vouched:
        _check_every_engine(site, out)
    home = variables.check_same(site, out)
    if home and not site.vouched:
        variables.check_thresholds(site, home, out)
    placeable = models.read(site, home, list(versions), out) if home else []
    devices = _devices(site, out)
    ranges = _port_ranges(site, out)
    seats: list[Seat] = []
    given: dict[str, int] = {}
    if home and placeable and devices:
        seats = _seats(site, home, placeable, devices, out)
    for host in dict.fromkeys(device.host for device in devices):
        capability.check(site, host, site.hosts[host]["devices"], out)
    if ranges is not None:
        given, clashes = ports.assign(seats, site, ranges, site.current)
        for clash in clashes:
            out.add(home if home and clash.path[0] == "models" else clash.host, clash.path, clash.what, clash.hint)
    if out.refused:
        return out.in_order()
    return _assemble(site, placeable, seats, given, out)


def unnamed(site: SiteInput) -> list[Problem]:
    """What keeps a site from being taken down: no name, or no hosts. Its models may be as wrong as they like."""
    out = Findings(site)
    if not site.unreadable:
        variables.check_groups(site, out)
    return out.in_order() if out.refused else []


def vllm_versions(site: SiteInput) -> dict[str, str]:
    """The vLLM versions whose flags count, each with the first host that has it; the newest known where none is set."""
    versions: dict[str, str] = {}
    for host in site.groups.get("serving", ()):
        if found := _vllm_version(site, host):
            versions.setdefault(found, host)
    return versions or {engine_args.versions()[-1]: ""}


def _vllm_version(site: SiteInput, host: str) -> str:
    """The version of a host's vLLM; empty where none is set."""
    found = site.setting(host, "images_vllm_version")
    return str(found).removeprefix("v") if found and isinstance(found, (str, float)) else ""


def _check_versions(site: SiteInput, versions: Mapping[str, str], out: Findings) -> None:
    """Warn where nothing that is given to the engine can be checked."""
    for version in [version for version in versions if engine_args.known(version) is None]:
        out.add(
            versions[version] or site.groups["serving"][0],
            ("images_vllm_version",),
            f"the flags of vLLM {version} are not known, so `engine_args` and `tool_call_parser` are not checked",
            f"known versions: {', '.join(engine_args.versions())}; a release has three numbers and stands in quotes",
            "warning",
        )


def _check_every_engine(site: SiteInput, out: Findings) -> None:
    """Check what each host gives to all of its engines; what comes from one place is told once."""
    seen = []
    for host in site.groups.get("serving", ()):
        version = _vllm_version(site, host) or engine_args.versions()[-1]
        words, env = (site.hosts.get(host, {}).get(name) for name in ("vllm_args", "vllm_env"))
        places = [site.origin(host, (name,)) for name in ("vllm_args", "vllm_env")]
        if (one := (version, repr(words), repr(env), places)) in seen:
            continue
        seen.append(one)
        if isinstance(words, list):
            out.add_all(host, engine_args.check_words(words, version, ("vllm_args",)))
        if isinstance(env, dict):
            texts = {key: value for key, value in env.items() if isinstance(key, str)}
            out.add_all(host, engine_args.check_env(texts, ("vllm_env",)))


def _devices(site: SiteInput, out: Findings) -> list[Device]:
    """Every device of every serving host; an empty list when any of them is not known."""
    devices: list[Device] = []
    complete = True
    for host in site.groups.get("serving", ()):
        declared = site.hosts.get(host, {}).get("devices")
        if declared is None or declared == []:
            out.add(
                host,
                ("devices",),
                f"host {host} is in `serving` and has no `devices`",
                "say what it holds, such as `devices: [{kind: nvidia, count: 4}]`, for the host or its site group",
            )
        if not isinstance(declared, list) or not declared or out.is_bad(host, "devices"):
            complete = False
            continue
        if len({entry["kind"] for entry in declared}) > 1:
            out.add(
                host,
                ("devices",),
                f"host {host} declares CPU and NVIDIA devices, and all engines of a host run from one image",
                "leave the CPU out: a light model may share a GPU with another one, see `memory_share`",
            )
        counted: dict[str, int] = {}
        if host in site.gpus and any(entry["kind"] == "nvidia" for entry in declared):
            devices += hardware.devices(site, host, declared, out)
            declared = [entry for entry in declared if entry["kind"] != "nvidia"]
        for entry in declared:
            for _ in range(entry["count"]):
                index = counted.setdefault(entry["kind"], 0)
                counted[entry["kind"]] += 1
                devices.append(Device(host, entry["kind"], index, entry.get("model", ""), entry.get("memory_gib")))
    return devices if complete else []


def _port_ranges(site: SiteInput, out: Findings) -> dict[str, tuple[int, int]] | None:
    """First port and number of ports for instances, by serving host; None when one of them is not known."""
    ranges: dict[str, tuple[int, int]] = {}
    for host in site.groups.get("serving", ()):
        found = [ports.number(site.setting(host, name)) for name in ("vllm_port_base", "vllm_port_range")]
        base, size = found
        if base is None or size is None:
            if not any(out.is_bad(host, name) for name in ("vllm_port_base", "vllm_port_range")):
                out.add_site(
                    "the role vllm has no default for `vllm_port_base` or `vllm_port_range`",
                    "this checkout is not whole: see roles/vllm/defaults/main.yml",
                )
            return None
        if base + size > 65536:
            out.add(
                host,
                ("vllm_port_range",),
                f"ports {base} to {base + size - 1} go beyond 65535",
                "lower `vllm_port_base` or `vllm_port_range`",
            )
        ranges[host] = (base, size)
    return ranges


def _seats(site: SiteInput, home: str, placeable: list[Model], devices: list[Device], out: Findings) -> list[Seat]:
    seats, misfits = placement.place(placeable, devices, site.current, hardware.links(site))
    for misfit in misfits:
        out.add(home, ("models", misfit.model.position, misfit.key), misfit.what, misfit.hint)
    for model in memory.crowded(seats):
        out.add(
            home,
            ("models", model.position, "memory_share"),
            f"shares of memory on a GPU of model `{model.name}` add up to more than {memory.MOST_SHARED:g}: the driver "
            "and CUDA itself need some beside them, and the engine that starts last may find too little",
            f"keep their sum at {memory.MOST_SHARED:g} or below",
            "warning",
        )
    for model in placeable:
        if taken := [device for seat in seats if seat.model is model for device in seat.devices]:
            # The smallest that it gets decides.
            least = min(taken, key=lambda d: d.memory_gib or math.inf)
            given = site.setting(least.host, "vllm_args")
            models.check_size(home, model, least, given if isinstance(given, list) else [], out)
        kinds = {s.devices[0].kind for s in seats if s.model is model}
        if model.memory_share is not None and kinds == {"cpu"}:
            out.add(
                home,
                ("models", model.position, "memory_share"),
                f"memory_share of model `{model.name}` has no effect: it runs on CPU",
                "a CPU engine's memory is set by the vllm role's variables",
                "warning",
            )
        chosen = site.hosts[home]["models"][model.position].get("tool_call_parser")
        if model.kind == "hub" and model.tool_call_parser is None and chosen != "none":
            out.add(
                home,
                ("models", model.position),
                f"no tool call parser is known for `{model.source}`: its tool calls are off",
                "write `tool_call_parser: <name>`, or `none` if it has no tool calls",
                "warning",
            )
    return seats


def _assemble(site: SiteInput, placed: list[Model], seats: list[Seat], given: dict[str, int], out: Findings) -> Plan:
    instances: list[Instance] = []
    last_on: dict[tuple[str, int], str] = {}
    for seat in seats:
        instances.append(_instance(site, seat, given[seat.name], last_on))
    gateway, telemetry = list(site.groups["gateway"]), list(site.groups["telemetry"])
    address = _gateway_address(site, gateway[0])
    port = ports.number(site.setting(gateway[0], "haproxy_port"))
    jaeger = ports.number(site.setting(telemetry[0], "jaeger_query_port"))
    return Plan(
        site=site.site,
        inventory=site.inventory,
        models=[_model_entry(m, [s.name for s in seats if s.model is m]) for m in placed],
        instances=instances,
        gateway={
            "hosts": gateway,
            "port": port,
            "address": address,
            "base_url": f"http://{_bracketed(address)}:{port}/v1",
            "control": [_control(site, host) for host in gateway],
        },
        telemetry={
            "hosts": telemetry,
            "jaeger_url": f"http://{LOOPBACK}:{jaeger}",
            "otlp_port": ports.number(site.setting(telemetry[0], "jaeger_otlp_grpc_port")),
        },
        hosts={h: _host_entry(site, h) for h in dict.fromkeys([*site.groups["serving"], *gateway, *telemetry])},
        warnings=[p for p in out.in_order() if p.severity == "warning"],
    )


def _control(site: SiteInput, host: str) -> dict[str, str]:
    """Where a gateway host is told which instances clients may reach, and asked past its balancing."""
    folder = str(site.setting(host, "haproxy_config_dir"))
    return {
        "host": host,
        "socket": f"{folder}/run/admin.sock",
        "probe": f"{folder}/run/probe.sock",
        "config": f"{folder}/etc/haproxy.cfg",
    }


def _host_entry(site: SiteInput, host: str) -> dict[str, Any]:
    devices = site.hosts[host]["devices"] if host in site.groups["serving"] else []
    return {"address": hosts.address(site, host), "devices": devices, "declared": host not in site.gpus}


def _model_entry(model: Model, names: list[str]) -> dict[str, Any]:
    return {
        "name": model.name,
        "pool": model.pool,
        "source": model.source,
        "kind": model.kind,
        "preset": model.preset,
        "revision": model.revision,
        "store_name": model.store_name,
        "aliases": list(model.aliases),
        "served_names": model.served_names,
        "replicas": len(names),
        "tensor_parallel": model.tensor_parallel,
        "context_length": model.context_length,
        "tool_call_parser": model.tool_call_parser,
        "chat_template": model.chat_template,
        "instances": names,
    }


def _instance(site: SiteInput, seat: Seat, port: int, last_on: dict[tuple[str, int], str]) -> Instance:
    model, kind = seat.model, seat.devices[0].kind
    alone = list(site.groups["gateway"]) == [seat.host]
    address = LOOPBACK if alone else hosts.address(site, seat.host)
    before = [last_on[seat.host, d.index] for d in seat.devices if kind == "nvidia" and (seat.host, d.index) in last_on]
    for device in seat.devices if kind == "nvidia" else ():
        # vLLM measures free memory when it starts, so engines that share a device start one after the other.
        last_on[seat.host, device.index] = seat.name
    return Instance(
        name=seat.name,
        container=f"vllm-{seat.name}",
        model=model.name,
        pool=model.pool,
        host=seat.host,
        device_kind=kind,
        devices=[d.index for d in seat.devices],
        device_uuids=[d.uuid for d in seat.devices if d.uuid],
        cpus=hardware.cpus_of(seat.devices),
        numa_nodes=hardware.numa_nodes(seat.devices),
        tensor_parallel=model.tensor_parallel,
        port=port,
        address=address,
        publish_address=address,
        served_names=model.served_names,
        store_name=model.store_name,
        chat_template=model.chat_template,
        engine_args=_argv(model, kind),
        env=dict(model.env),
        start_after=before[-1] if before else None,
    )


def _argv(model: Model, kind: str) -> list[str]:
    """What follows the model's path on vLLM's command line and is particular to this model."""
    argv = ["--served-model-name", *model.served_names]
    if model.context_length is not None:
        argv += ["--max-model-len", str(model.context_length)]
    if model.dtype is not None:
        argv += ["--dtype", model.dtype]
    if model.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(model.tensor_parallel)]
    argv += memory.argument(model, kind)
    if model.tool_call_parser is not None:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", model.tool_call_parser]
    return [*argv, *model.engine_args]


def _gateway_address(site: SiteInput, host: str) -> str:
    bound = str(site.setting(host, "haproxy_bind_address") or "")
    if bound not in hosts.WILDCARDS:
        return bound
    return LOOPBACK if hosts.is_local(site, host) else hosts.address(site, host)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
