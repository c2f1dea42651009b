"""What a site needs of one host, out of its plan and the roles' variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean  # a switch may come as text

LIMITS = "host_checks_"
READ = (
    "docker_packages",
    "docker_version",
    "haproxy_bind_address",
    "haproxy_port",
    "haproxy_stats_port",
    "images_catalogue",
    "images_min_free_gib",
    "images_mode",
    "images_overrides",
    "images_registry_prefix",
    "jaeger_health_port",
    "jaeger_query_port",
    "model_store_ca_file",
    "model_store_dir",
    "model_store_hub_url",
    "model_store_proxy_env",
    "nvidia_driver_branch",
    "nvidia_driver_branch_min",
    "nvidia_driver_manage",
    "nvidia_driver_prebuilt",
    "nvidia_driver_repository_manage",
    "nvidia_driver_repository_url",
    "nvidia_driver_source",
    "vllm_cache_dir",
    "vllm_gpu_runtime_driver",
)
LOOPBACK = "127.0.0.1"


def needs(plan: Mapping[str, Any], host: str, values: Mapping[str, Any], *, bundled: bool = False) -> dict[str, Any]:
    """Return what the plan needs of a host; values: the variables of READ and `host_checks_*` as the host has them.

    bundled: images and models come out of a bundle, which is looked into before anything is touched; no registry and no
    hub has to be in reach.

    Keys: site, nvidia (bool), namesakes (hosts of the site that have this one's address), declared (entries of
    `devices`), devices (planned device numbers or UUIDs), published (addresses that Docker is to publish ports on),
    outside [port that clients come to], ports [{port, address, what}], folders [path], space [{path, gib, what}],
    images [reference], pulled [reference], gpu_images [reference], models {name: folder}, sources {name: path, of
    models that lie on the host}, fetched [model that is not made on the spot], hub [model that comes from a hub],
    registry_url, hub_url, urls [{url, env, ca_file}], docker_version (wanted, or empty), docker_package (its package,
    or empty), gpu_driver, driver {manage, branch, branch_min, prebuilt, public (bool:
    it comes from NVIDIA's own repository)}, limits {name without its prefix: value}.
    """
    mine = [instance for instance in plan["instances"] if instance["host"] == host]
    on_gpus = [instance for instance in mine if instance["device_kind"] == "nvidia"]
    declared = plan["hosts"].get(host, {}).get("devices") or []
    nvidia = any(device["kind"] == "nvidia" for device in declared)
    images = _images(plan, host, values, nvidia)
    if bundled:
        images["pulled"] = []
    limits = {name.removeprefix(LIMITS): value for name, value in values.items() if name.startswith(LIMITS)}
    store = str(values["model_store_dir"])
    wanted = {instance["model"] for instance in mine}
    models = [model for model in plan["models"] if model["name"] in wanted]
    hub = [model["name"] for model in models if model["kind"] == "hub" and not bundled]
    registry_url = _registry_url(images["pulled"], str(limits["registry_url"]))
    hub_url = str(values["model_store_hub_url"] or limits["hub_url"]) if hub else ""
    return {
        "site": plan["site"],
        "nvidia": nvidia,
        "namesakes": _namesakes(plan, host),
        "declared": [entry for entry in declared if entry["kind"] == "nvidia"],
        "devices": sorted({str(d) for i in on_gpus for d in (i.get("device_uuids") or i["devices"])}),
        "ports": _ports(plan, host, mine, values),
        "outside": [int(values["haproxy_port"])] if _is_outside(plan, host, values) else [],
        "published": sorted({str(one["publish_address"]) for one in mine} | set(_spans(plan, host))),
        "folders": [store, str(values["vllm_cache_dir"])] if mine else [],
        "space": _space(store, values, limits, serving=bool(mine)),
        **images,
        "models": {model["name"]: f"{store}/{model['store_name']}" for model in models},
        "sources": {model["name"]: model["source"] for model in models if model["kind"] == "path"},
        "fetched": [model["name"] for model in models if model["kind"] != "synthetic"],
        "hub": hub,
        "registry_url": registry_url,
        "hub_url": hub_url,
        "urls": [
            *([{"url": registry_url, "env": {}, "ca_file": ""}] if registry_url else []),
            *([{"url": hub_url, **_as_the_store(values)}] if hub_url else []),
        ],
        "driver": _driver(values),
        "docker_version": str(values["docker_version"]),
        "docker_package": _engine(values.get("docker_packages") or ["docker.io"]),
        "gpu_driver": str(values["vllm_gpu_runtime_driver"]),
        "limits": limits,
    }


def _engine(packages: Sequence[str]) -> str:
    """Return which of the packages is an engine as the docker role knows them; empty where none is."""
    names = [str(package).partition("=")[0] for package in packages]
    return next((name for name in names if name in ("docker-ce", "docker.io", "moby-engine")), "")


def _namesakes(plan: Mapping[str, Any], host: str) -> list[str]:
    own = plan["hosts"].get(host, {}).get("address")
    return [other for other, entry in plan["hosts"].items() if other != host and own and entry["address"] == own]


def _driver(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the role nvidia_driver would see to."""
    return {
        "manage": boolean(values["nvidia_driver_manage"]),
        "branch": int(values["nvidia_driver_branch"]),
        "branch_min": int(values["nvidia_driver_branch_min"]),
        "prebuilt": boolean(values["nvidia_driver_prebuilt"]),
        "public": boolean(values["nvidia_driver_repository_manage"])
        and values["nvidia_driver_source"] == "vendor"
        and "//developer.download.nvidia." in str(values["nvidia_driver_repository_url"]),
    }


def _as_the_store(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the model store asks the hub: proxies and the CA that it trusts."""
    return {"env": dict(values["model_store_proxy_env"] or {}), "ca_file": str(values["model_store_ca_file"] or "")}


def _images(plan: Mapping[str, Any], host: str, values: Mapping[str, Any], nvidia: bool) -> dict[str, list[str]]:
    """Return the images that the host needs, those of them that only a registry has, and those that can list GPUs."""
    names = ["vllm-cuda" if nvidia else "vllm-cpu"] if plan["hosts"].get(host, {}).get("devices") else []
    names += [name for name, part in (("haproxy", "gateway"), ("jaeger", "telemetry")) if host in plan[part]["hosts"]]
    overrides = {entry["name"]: entry for entry in values["images_overrides"] or []}
    prefix = str(values["images_registry_prefix"] or "").rstrip("/")
    images, pulled, gpu = [], [], []
    for entry in values["images_catalogue"]:
        image = {**entry, **overrides.get(entry["name"], {})}
        if image["name"] not in names:
            continue
        reference = f"{prefix}/{image['reference']}" if prefix else str(image["reference"])
        images.append(reference)
        if not image.get("build") or (image.get("mode") or values["images_mode"]) == "pull":
            pulled.append(reference)
        if image["name"] == "vllm-cuda":
            gpu.append(reference)
    return {"images": images, "pulled": pulled, "gpu_images": gpu}


def _registry_url(pulled: list[str], upstream: str) -> str:
    """Return the address under which the first registry answers; empty when nothing is pulled."""
    if not pulled:
        return ""
    first, slash, _rest = pulled[0].partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return f"https://{first}/v2/" if named else upstream


def _ports(
    plan: Mapping[str, Any], host: str, mine: list[Mapping[str, Any]], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found = [{"port": one["port"], "address": one["publish_address"], "what": one["name"]} for one in mine]
    if host in plan["gateway"]["hosts"]:
        found.append({"port": values["haproxy_port"], "address": values["haproxy_bind_address"], "what": "gateway"})
        found.append({"port": values["haproxy_stats_port"], "address": LOOPBACK, "what": "gateway's statistics"})
    if host in plan["telemetry"]["hosts"]:
        found.append({"port": values["jaeger_query_port"], "address": LOOPBACK, "what": "trace page"})
        found.append({"port": values["jaeger_health_port"], "address": LOOPBACK, "what": "Jaeger's health"})
        for address in _spans(plan, host):
            found.append({"port": plan["telemetry"]["otlp_port"], "address": address, "what": "spans of other hosts"})
    return [{**entry, "port": int(entry["port"]), "address": str(entry["address"])} for entry in found]


def _is_outside(plan: Mapping[str, Any], host: str, values: Mapping[str, Any]) -> bool:
    """Say whether clients come to this host from elsewhere."""
    return host in plan["gateway"]["hosts"] and str(values["haproxy_bind_address"]) not in (
        LOOPBACK,
        "::1",
        "localhost",
    )


def _spans(plan: Mapping[str, Any], host: str) -> list[str]:
    """Return the address on which a host takes spans of other hosts, if it does."""
    others = any(instance["host"] != host for instance in plan["instances"])
    return [str(plan["hosts"][host]["address"])] if others and host in plan["telemetry"]["hosts"] else []


def _space(store: str, values: Mapping[str, Any], limits: Mapping[str, Any], *, serving: bool) -> list[dict[str, Any]]:
    """Return the folders that must have room; an empty path stands for Docker's own folder."""
    found = [{"path": "", "gib": float(values["images_min_free_gib"]), "what": "images"}]
    if serving:
        found.append({"path": store, "gib": float(limits["store_free_gib"]), "what": "models"})
        cache = str(values["vllm_cache_dir"])
        found.append({"path": cache, "gib": float(limits["cache_free_gib"]), "what": "vLLM's cache"})
    return found
