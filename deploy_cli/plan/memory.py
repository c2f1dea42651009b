"""How much of a device an instance takes. First version: shares of GPU memory, and one CPU engine per declared unit.

It does not yet know weights or KV cache sizes: a model that is too large for its share is noticed by vLLM at start.
"""

from collections.abc import Iterable
from typing import Any

from deploy_cli.plan.shapes import Model

WHOLE = 1.0
DEFAULT_GPU_SHARE = 0.92
"""vLLM's own default; the rest is for the CUDA context and what the engine does not count."""
MOST_SHARED = 0.95
"""More than this of a GPU's memory engines seldom get together: driver and CUDA contexts take some beside it."""
_ROUNDING = 1e-9


def need(model: Model, kind: str) -> float:
    """Share of each of its devices that an instance claims. Without `memory_share` a GPU is the instance's alone."""
    return model.memory_share if kind == "nvidia" and model.memory_share is not None else WHOLE


def crowded(seats: Iterable[Any]) -> list[Model]:
    """Models on a GPU whose instances most likely leave too little of it to CUDA; seats: `model` and `devices` each."""
    taken: dict[Any, float] = {}
    shared = [seat for seat in seats if seat.model.memory_share is not None and seat.devices[0].kind == "nvidia"]
    for seat in shared:
        for device in seat.devices:
            taken[device] = taken.get(device, 0) + seat.model.memory_share
    full = {device for device, sum_ in taken.items() if sum_ > MOST_SHARED + _ROUNDING}
    return list({seat.model.name: seat.model for seat in shared if full & set(seat.devices)}.values())


def fits(free: float, wanted: float) -> bool:
    """Whether a claim fits into what is left of a device (both are shares, 0 to 1)."""
    return wanted <= free + _ROUNDING


def argument(model: Model, kind: str) -> list[str]:
    """vLLM's argument for the share; a CPU engine is sized by the vllm role instead."""
    if kind != "nvidia":
        return []
    share = DEFAULT_GPU_SHARE if model.memory_share is None else model.memory_share
    return ["--gpu-memory-utilization", f"{share:g}"]
