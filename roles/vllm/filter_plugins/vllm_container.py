"""A planned instance -> the container that runs it; pure, so that its hash tells whether anything changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

HEARTBEAT = sorted((Path(__file__).resolve().parents[1] / "files/heartbeat").glob("*.py"))


def heartbeat_name() -> str:
    """Folder name of the heartbeat on the host; with the files' hash in it, a running engine keeps the one it has."""
    return "heartbeat-" + hashlib.sha256(b"".join(file.read_bytes() for file in HEARTBEAT)).hexdigest()[:12]


def entrypoint(instance: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """What the container starts: the engine, as the heartbeat's child where that is wanted."""
    if not settings["heartbeat"]:
        return ["vllm", "serve"]
    options: dict[str, Any] = {**settings["heartbeat_options"]}
    options["spin-seconds"] = settings["heartbeat_spin_seconds"]["cpu" if instance["device_kind"] == "cpu" else "gpu"]
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["python3", "/deployctl/heartbeat.py", *given, "--", "vllm", "serve"]


def template_name(instance: dict[str, Any]) -> str:
    """File name of the instance's own chat template; it holds the content's hash, so that an edit is a change."""
    content = Path(instance["chat_template"]).read_bytes()
    return f"chat_template-{hashlib.sha256(content).hexdigest()[:12]}.jinja"


def command(instance: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Arguments of `vllm serve`: ours, the plan's for this model, the site's for every instance."""
    args = ["/model", "--host", "0.0.0.0", "--port", "8000"]  # noqa: S104 - inside the container
    args += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    args += ["--shutdown-timeout", str(settings["shutdown_timeout"])]
    args += ["--disable-access-log-for-endpoints", "/health,/metrics"]
    if instance.get("chat_template"):
        args += ["--chat-template", f"/cache/{template_name(instance)}"]
    if settings["heartbeat"]:
        args += ["--middleware", "first_token.FirstToken"]
    if settings["otlp_endpoint"]:
        args += ["--otlp-traces-endpoint", settings["otlp_endpoint"]]
    if instance["device_kind"] == "cpu":
        args += ["--enforce-eager"]
        # A virtual CPU may announce AMX and forbid its use; vLLM's bf16 attention then dies of an illegal instruction.
        if "--dtype" not in instance["engine_args"]:
            args += ["--dtype", settings["cpu_dtype"]]
    return args + [str(a) for a in instance["engine_args"]] + [str(a) for a in settings["args"]]


def environment(instance: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """Environment of the engine; it may reach no hub, and its spans carry the instance's name."""
    env = {
        "OTEL_SERVICE_NAME": instance["container"],
        # Milliseconds until a span leaves the engine (5000 by default): what a killed engine did last is in Jaeger too.
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HOME": "/tmp/home",  # noqa: S108 - a tmpfs of the container
        "USER": "vllm",
        "LOGNAME": "vllm",
        "VLLM_CACHE_ROOT": "/cache",
        # Kernels compiled once are there for the next container of this instance.
        "TORCHINDUCTOR_CACHE_DIR": "/cache/torchinductor",
    }
    if settings["heartbeat"]:
        env["PYTHONPATH"] = "/deployctl"
    if instance["device_kind"] == "cpu":
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings["cpu_kvcache_gib"]),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings["cpu_threads"]),
            # Idle threads sleep at once: several engines share the cores.
            "KMP_BLOCKTIME": "0",
            # Goes with --enforce-eager: else the first request for logprobs waits for a C++ compiler.
            "TORCHDYNAMO_DISABLE": "1",
        }
    return env | {str(k): str(v) for k, v in {**settings["env"], **instance.get("env", {})}.items()}


def cpu_share(instance: dict[str, Any], settings: dict[str, Any]) -> str:
    """CPUs of an instance without a GPU, as a list for a cpuset: its part of the host's; empty where it has them all.

    Two engines on the same cores take them from each other: the processes of one that serves spin while they wait for
    one another, and one that starts beside it then takes three times as long.
    """
    cpus, places = settings["cpus"], settings["cpu_places"]
    if places < 2 or len(cpus) < 2:
        return ""
    mine = set()
    for place in instance["devices"]:
        if len(cpus) < places:
            mine.add(cpus[place % len(cpus)])
        else:
            mine.update(cpus[place * len(cpus) // places : (place + 1) * len(cpus) // places])
    return ",".join(str(cpu) for cpu in sorted(mine))


def cpu_list(text: str) -> list[int]:
    """A list as Linux writes it, `0-3,8`, as numbers; empty for a text without one."""
    found = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def vllm_container(instance: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything about the container of one instance, and `hash` over all of it."""
    model = settings["store_models"].get(instance["model"], {})
    cpu = instance["device_kind"] == "cpu"
    spec: dict[str, Any] = {
        "name": instance["container"],
        "instance": instance["name"],
        "model": instance["model"],
        "pool": instance["pool"],
        "image": settings["image"],
        "image_id": settings["image_id"],
        "model_id": model.get("id", ""),
        "entrypoint": entrypoint(instance, settings),
        "command": command(instance, settings),
        "env": environment(instance, settings),
        "volumes": [
            f"{model.get('folder', settings['store_dir'])}:/model:ro",
            f"{settings['cache_dir']}/{instance['name']}:/cache",
        ],
        "published_ports": [f"{instance['publish_address']}:{instance['port']}:8000"],
        "shm_size": settings["cpu_shm_size"] if cpu else settings["shm_size"],
        "memory": settings["memory_limit"],
        "stop_timeout": int(settings["stop_grace"]),
        "user": settings["user"],
        "network": settings["network"],
        "restart_policy": settings["restart_policy"],
        "device_requests": [],
        # Beside its GPU: CPUs and memory of the same NUMA node.
        "cpus": instance.get("cpus") or (cpu_share(instance, settings) if cpu else ""),
        "mems": ",".join(str(node) for node in instance.get("numa_nodes") or []),
        "site": settings["site"],
        "served_names": instance["served_names"],
    }
    # Of its own kind only: index 0 of a CPU machine is no GPU 0.
    spec["devices"] = instance.get("device_uuids") or [f"{instance['device_kind']}{d}" for d in instance["devices"]]
    if settings["heartbeat"]:
        spec["heartbeat_dir"] = f"{settings['files_dir']}/{heartbeat_name()}"
        spec["volumes"].append(f"{spec['heartbeat_dir']}:/deployctl:ro")
    if not cpu:
        names = instance.get("device_uuids") or [str(d) for d in instance["devices"]]
        if settings["gpu_driver"] == "cdi":
            spec["device_requests"] = [
                {"driver": "cdi", "count": 0, "device_ids": [f"nvidia.com/gpu={n}" for n in names]}
            ]
        else:
            spec["device_requests"] = [{"driver": "nvidia", "count": 0, "device_ids": names, "capabilities": [["gpu"]]}]
    spec["hash"] = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:20]
    # Not part of the hash: they say how it is waited for and what made room for it, not what runs.
    spec["instead_of"] = []
    spec["start_after"] = f"vllm-{instance['start_after']}" if instance.get("start_after") else ""
    spec["chat_template"] = instance.get("chat_template") or ""
    spec["chat_template_file"] = template_name(instance) if spec["chat_template"] else ""
    spec["url"] = f"http://{instance['publish_address']}:{instance['port']}"
    return spec


def vllm_before(specs: list[dict[str, Any]], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a host that start before `spec` on one of its devices; it measures what memory they have left."""
    earlier = specs[: [one["name"] for one in specs].index(spec["name"])]
    return [one for one in earlier if set(one["devices"]) & set(spec["devices"])]


def vllm_labels(spec: dict[str, Any]) -> dict[str, str]:
    """What a container says of itself, for `vllm_have` to read; who made room for it only where somebody did."""
    labels = {
        "site": spec["site"],
        "role": "vllm",
        "instance": spec["instance"],
        "model": spec["model"],
        "pool": spec["pool"],
        "names": "\n".join(spec["served_names"]),
        "address": spec["url"].removeprefix("http://"),
        "devices": ",".join(spec["devices"]),
        "spec": spec["hash"],
    }
    if spec["instead_of"]:
        labels["instead_of"] = ",".join(spec["instead_of"])
    return {f"deployctl.{name}": value for name, value in labels.items()}


class FilterModule:
    """Ansible's door to the functions above."""

    def filters(self) -> dict[str, Any]:
        """Name -> function."""
        return {
            "vllm_before": vllm_before,
            "vllm_container": vllm_container,
            "vllm_cpu_list": cpu_list,
            "vllm_labels": vllm_labels,
        }
