"""Which models a site begins with: the first of a list that its devices hold and the planner accepts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AWQ_LEAST = 7.5  # compute capability from which vLLM reads weights of 4 bits (AWQ)
BF16_LEAST = 8.0
UNKNOWN = 99.0  # a GPU that says nothing of it and is in no table is newer than the table


@dataclass(frozen=True)
class Offer:
    """A set of models. memory_gib, capability: what each GPU must have at least; why: what is said of the choice."""

    models: tuple[dict[str, Any], ...]
    memory_gib: float
    capability: float
    why: str


def _hub(source: str, **more: Any) -> dict[str, Any]:
    return {"name": source.partition("/")[2].lower(), "source": source, "revision": "main", **more}


CHAT = {"replicas": 1, "aliases": ["chat-default"]}
LARGE = _hub("Qwen/Qwen2.5-14B-Instruct-AWQ", **CHAT, context_length=32768)
LIGHT = _hub("Qwen/Qwen2.5-1.5B-Instruct", replicas=1, context_length=8192)
OFFERS = (
    Offer(
        ({**LARGE, "memory_share": 0.70}, {**LIGHT, "memory_share": 0.20}),
        39,
        AWQ_LEAST,
        "one chat model on every GPU (9.4 GiB of weights, the rest is KV cache) and a light model beside it",
    ),
    Offer((LARGE,), 20, AWQ_LEAST, "one chat model on every GPU: 9.4 GiB of weights, the rest is KV cache"),
    Offer(
        (_hub("Qwen/Qwen2.5-7B-Instruct", **CHAT, context_length=16384),),
        28,
        0,
        "one chat model on every GPU, in 16 bits (these GPUs read no AWQ): 14.2 GiB of weights",
    ),
    Offer(
        (_hub("Qwen/Qwen2.5-7B-Instruct-AWQ", **CHAT, context_length=16384),),
        14,
        AWQ_LEAST,
        "one chat model on every GPU: 5.2 GiB of weights, the rest is KV cache",
    ),
    Offer(
        ({**LIGHT, **CHAT},),
        0,
        0,
        "a light model on every GPU: the GPUs' memory is small, or not known yet",
    ),
)


def offers(devices: Sequence[Mapping[str, Any]]) -> list[tuple[list[dict[str, Any]], str]]:
    """Return (models, why) for these devices of all serving hosts, the most able first."""
    gpus = [device for device in devices if device["kind"] == "nvidia"]
    if not gpus:
        count = sum(device["count"] for device in devices)
        tiny = {"name": "tiny-chat", "source": "synthetic:tiny-chat", "replicas": min(2, count)}
        tiny |= {"aliases": ["chat-default"], "tool_call_parser": "hermes"}
        return [
            (
                [tiny],
                "a tiny model of random weights, made on the spot: it answers and says nothing; put a real one here",
            )
        ]
    memory = min(float(device.get("memory_gib") or 0) for device in gpus)
    capability = min(float(device.get("compute_capability") or UNKNOWN) for device in gpus)
    count = sum(device["count"] for device in gpus)
    fitting = [offer for offer in OFFERS if memory >= offer.memory_gib and capability >= offer.capability]
    return [(_filled(offer, count, capability), offer.why) for offer in fitting]


def holding_back(devices: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the GPUs because of which all get smaller models than the most able one could hold."""
    alone = [(device, offers([device])[0][1]) for device in devices if device["kind"] == "nvidia"]
    ranks = {offer.why: rank for rank, offer in enumerate(OFFERS)}  # the first is for the most able
    best = min((ranks[why] for _device, why in alone), default=0)
    return [device for device, why in alone if ranks[why] > best]


def told(device: Mapping[str, Any]) -> str:
    """Name a device with its memory."""
    memory = f"{device['memory_gib']:g} GiB" if device.get("memory_gib") else "its memory is not known"
    return f"{device.get('model') or 'a GPU'} ({memory})"


def _filled(offer: Offer, count: int, capability: float) -> list[dict[str, Any]]:
    """Put the first model on every GPU; where the GPUs have no bfloat16, say so to the engine."""
    models = [dict(model) for model in offer.models]
    models[0]["replicas"] = count
    if capability < BF16_LEAST:
        for model in models:
            model["dtype"] = "half"
    return models


def first_accepted(
    devices: Sequence[Mapping[str, Any]], problems: Callable[[list[dict[str, Any]]], list[Any]]
) -> tuple[list[dict[str, Any]], str, list[Any]]:
    """Return (models, why, []) of the first offer without problems; with the last one's problems when none has.

    problems: what the planner finds wrong with a site of these models.
    """
    tried: tuple[list[dict[str, Any]], str, list[Any]] = ([], "", [])
    for models, why in offers(devices):
        tried = (models, why, problems(models))
        if not tried[2]:
            return tried
    return tried
