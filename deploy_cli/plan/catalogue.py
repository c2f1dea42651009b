"""What is known about models beforehand: defaults that an entry of `models` need not repeat."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A synthetic model that deployctl makes itself: random weights, real tokenizer. Context in tokens."""

    name: str
    layers: int
    context_length: int
    tool_call_parser: str = "hermes"


PRESETS = {p.name: p for p in (Preset("tiny-chat", 2, 2048), Preset("tiny-chat-long", 2, 8192))}

# First match wins; looked for in the lower-case source. None: vLLM reads no tool calls of that family.
TOOL_CALL_PARSERS: tuple[tuple[str, str | None], ...] = (
    (r"distill", None),
    (r"qwen3-coder|qwen3\.[5-9]", "qwen3_coder"),
    (r"qwq|qwen[23]|hermes", "hermes"),
    (r"llama-?4", "llama4_pythonic"),
    (r"llama-?3\.[1-9]", "llama3_json"),
    (r"mistral-(large|nemo|small|medium)|mixtral|ministral|devstral|magistral|mistral-7b-instruct-v0\.3", "mistral"),
    (r"granite-?4", "granite4"),
    (r"granite-?3", "granite"),
    (r"granite-20b-functioncalling", "granite-20b-fc"),
    (r"gpt-oss", "openai"),
    (r"deepseek-v3\.1", "deepseek_v31"),
    (r"deepseek-v3\.2", "deepseek_v32"),
    (r"deepseek-(v3|r1)", "deepseek_v3"),
    (r"glm-4\.[56]", "glm45"),
    (r"glm-4\.7", "glm47"),
    (r"kimi-k2", "kimi_k2"),
    (r"minimax-m2", "minimax_m2"),
    (r"phi-4-mini", "phi4_mini_json"),
    (r"functiongemma", "functiongemma"),
    (r"gemma-?4", "gemma4"),
    (r"internlm", "internlm"),
    (r"jamba", "jamba"),
    (r"xlam", "xlam"),
    (r"seed-oss", "seed_oss"),
    (r"apertus", "apertus"),
)


def tool_call_parser(source: str) -> str | None:
    """The parser that reads this model family's tool calls, or None when the family is not known."""
    for pattern, parser in TOOL_CALL_PARSERS:
        if re.search(pattern, source.lower()):
            return parser
    return None
