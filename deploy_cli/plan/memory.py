"""How much of a device an instance takes. First version: shares of GPU memory, and one CPU engine per declared unit.

It does not yet know weights or KV cache sizes: a model that is too large for its share is noticed by vLLM at start.
"""

from deploy_cli.plan.shapes import Model

WHOLE = 1.0
DEFAULT_GPU_SHARE = 0.92
"""vLLM's own default; the rest is for the CUDA context and what the engine does not count."""
MOST_SHARED = 0.95
"""So much of a GPU's memory all engines on it may take together: each process has a CUDA context beside that."""
_ROUNDING = 1e-9


def need(model: Model, kind: str) -> float:
    """Part of each of its devices that an instance claims. Without `memory_share` a GPU is the instance's alone."""
    return model.memory_share / MOST_SHARED if kind == "nvidia" and model.memory_share is not None else WHOLE


def too_much(model: Model) -> bool:
    """Whether an instance alone would take more of a GPU than CUDA leaves it."""
    return model.memory_share is not None and model.memory_share > MOST_SHARED + _ROUNDING


def fits(free: float, wanted: float) -> bool:
    """Whether a claim fits into what is left of a device (both are parts of what may be given away, 0 to 1)."""
    return wanted <= free + _ROUNDING


def argument(model: Model, kind: str) -> list[str]:
    """vLLM's argument for the share; a CPU engine is sized by the vllm role instead."""
    if kind != "nvidia":
        return []
    share = DEFAULT_GPU_SHARE if model.memory_share is None else model.memory_share
    return ["--gpu-memory-utilization", f"{share:g}"]
