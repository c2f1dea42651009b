"""How much memory a model's weights take, by its name: an estimate for a warning, low rather than high."""

import re

GIB_PER_BILLION = 1.86
"""A billion weights of 16 bits, which is what most models are published with."""
_EIGHT_BITS, _FOUR_BITS = 0.93, 0.5
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)[bB](?![A-Za-z0-9])")
_SHARED = 0.8
"""Part of 8x7B or 8x22B that there really is: the experts have their attention in common."""
_EXPERTS = re.compile(r"(?<![A-Za-z0-9])\d+E(?![A-Za-z0-9])")
"""Behind it the size is that of one expert (17B-128E), and nobody knows the whole."""
_FOUR = re.compile(r"awq|gptq|int[2-4]|[2-4]-?bit|w[2-4]a\d|(nf|fp)4|bnb|gpt-oss|quant|autoround|qat|hqq|aqlm|exl")
# The models that Mistral published in December 2025 have 8 bits without saying so.
_EIGHT = re.compile(r"fp8|int8|8-?bit|w8a\d+|mistralai/.*-2512$")


def billions(source: str) -> float:
    """How many billion weights the name of a model or of its folder tells; 0 where it tells none."""
    name = source.rstrip("/").rpartition("/")[2]
    sizes = [float(times or 1) * float(size) * (_SHARED if times else 1) for times, size in _SIZE.findall(name)]
    # The least of several: the others may be of the data, or of the model that it was made from.
    return 0.0 if _EXPERTS.search(name) else min(sizes, default=0.0)


def gib_per_billion(source: str, quantization: str) -> float:
    """GiB that a billion weights take at least, by what vLLM is told of them (empty: nothing), else by the name."""
    told = quantization.lower() or source.lower()
    if not quantization and _FOUR.search(told):
        return _FOUR_BITS
    if _EIGHT.search(told):
        return _EIGHT_BITS
    return _FOUR_BITS if quantization else GIB_PER_BILLION
