"""What an acceptance consists of: which checks a plan asks for, whom they ask, and how the load run is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Plan = Mapping[str, Any]

# Strict, and every answer an enum: even a model with random weights then writes arguments that follow the schema.
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "report_weather",
        "description": "Report the weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Lisbon", "Oslo", "Quito"]},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


def service_name(instance: Mapping[str, Any]) -> str:
    """The name under which an instance sends its spans."""
    return str(instance["container"])


def instances_of(plan: Plan, model: str) -> list[Mapping[str, Any]]:
    """The instances of a model, in the plan's order."""
    return [instance for instance in plan["instances"] if instance["model"] == model]


def targets(plan: Plan) -> list[dict[str, Any]]:
    """The models as the measuring modules want them; `tool` only for a model that can call one.

    Nothing else of the plan leaves the control node: an engine's environment may hold secrets.
    """
    return [
        {
            "name": model["name"],
            "served_names": list(model["served_names"]),
            "tool": TOOL if model.get("tool_call_parser") else {},
            "instances": [
                {"name": entry["name"], "url": f"http://{entry['address']}:{entry['port']}"}
                for entry in instances_of(plan, model["name"])
            ],
        }
        for model in plan["models"]
    ]


def loads(plan: Plan, gateway_host: str) -> list[dict[str, str]]:
    """One load run per model, on the gateway's host if the model runs there, else on the first host that has it.

    That host holds the vLLM image and the tokenizer: the load run takes both from an instance's container there.
    """
    runs = []
    for model in plan["models"]:
        instances = instances_of(plan, model["name"])
        nearest = next((entry for entry in instances if entry["host"] == gateway_host), instances[0])
        runs.append(
            {
                "model": model["name"],
                "pool": model["pool"],
                "host": nearest["host"],
                "container": nearest["container"],
            }
        )
    return runs


def images(running: Iterable[Mapping[str, Any]], known: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The images of the running containers, as the report shows them.

    running: containers as the Docker engine lists them, of all hosts; known: what the images role said on each host
    ({name: {reference, id, source}}), which alone knows whether an image was pulled or built in this run.
    """
    by_id = {image["id"]: (name, image) for found in known for name, image in found.items()}
    shown: dict[str, dict[str, str]] = {}
    for container in running:
        name, image = by_id.get(container["ImageID"], (container["Labels"].get("deployctl.role", "other"), {}))
        if any(entry["id"] == container["ImageID"] for entry in shown.values()):
            continue
        if name in shown:
            name = f"{name} ({container['ImageID'].removeprefix('sha256:')[:12]})"
        shown[name] = {
            "reference": image.get("reference", container["Image"]),
            "id": container["ImageID"],
            "source": image.get("source", "present"),
        }
    return dict(sorted(shown.items()))


def bench_arguments(model: str, base_url: str, shape: Mapping[str, Any]) -> list[str]:
    """The arguments of `vllm bench serve`.

    `shape`: prompts, concurrency, input_tokens, output_tokens, seed, tokenizer, result_dir, result_name, extra (list).
    The key is not among them; the program reads it from its environment.
    """
    options = {
        "--backend": "openai-chat",
        "--base-url": base_url.rstrip("/").removesuffix("/v1"),
        "--endpoint": "/v1/chat/completions",
        "--model": model,
        "--tokenizer": shape["tokenizer"],
        "--dataset-name": "random",
        "--random-input-len": shape["input_tokens"],
        "--random-output-len": shape["output_tokens"],
        "--num-prompts": shape["prompts"],
        "--max-concurrency": shape["concurrency"],
        "--seed": shape["seed"],
        "--percentile-metrics": "ttft,tpot,itl,e2el",
        "--metric-percentiles": "50,90,95,99",
        "--result-dir": shape["result_dir"],
        "--result-filename": shape["result_name"],
    }
    arguments = [str(part) for option in options.items() for part in option]
    return [*arguments, "--ignore-eos", "--save-result", *map(str, shape["extra"])]


def expected_checks(plan: Plan) -> list[tuple[str, str]]:
    """(id, title) of every check this plan asks for, in the order of the report. Ids are stable."""
    models, instances = plan["models"], plan["instances"]
    served = [(name, model["name"]) for model in models for name in model["served_names"]]
    checks = [("models_listed", "The gateway lists every model")]
    checks += [
        (f"model_answers:{name}", f"{name} answers" + ("" if name == model else f" (alias of {model})"))
        for name, model in served
    ]
    checks += [(f"instance_served:{entry['name']}", f"{entry['name']} served requests") for entry in instances]
    checks += [(f"streaming:{model['name']}", f"{model['name']} streams token by token") for model in models]
    checks += [
        (f"tool_call:{model['name']}", f"{model['name']} calls a tool with valid arguments")
        for model in models
        if model.get("tool_call_parser")
    ]
    checks += [
        ("no_key_refused", "A request without a key is refused"),
        ("wrong_key_refused", "A request with a wrong key is refused"),
        ("unknown_model_404", "An unknown model is a clear 404"),
        ("outside_paths_closed", "Nothing but /v1 is reachable"),
        ("trace_found", "A request is found in Jaeger with its latencies"),
        ("traces_of_every_instance", "Every instance sends traces"),
    ]
    checks += [(f"prefix_cache_hits:{model['name']}", f"{model['name']} reuses a repeated prefix") for model in models]
    checks += [(f"load:{model['name']}", f"{model['name']} bears the load") for model in models]
    return [*checks, ("gateway_no_errors", "The gateway saw no error")]
