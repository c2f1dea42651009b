"""Make a tiny causal language model with random weights, a trained tokenizer and a chat template with tools.

It speaks nonsense, and everything around it is real: the files are what any Qwen2-like model has. The same preset and
seed give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Sizes are the smallest that vLLM's CPU attention takes (head size 64 and up).
PRESETS: dict[str, dict[str, Any]] = {
    "tiny-chat": {"hidden": 128, "layers": 2, "heads": 2, "kv_heads": 1, "context": 2048},
    "tiny-chat-long": {"hidden": 128, "layers": 2, "heads": 2, "kv_heads": 1, "context": 8192},
}

TEMPLATE = """{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}You may call these functions:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Answer a call as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{%- elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{%- elif message.role != 'system' or not loop.first %}
<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- set given = call.function.arguments %}
{%- set text = given if given is string else given | tojson %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ text }}}</tool_call>
{%- endfor %}<|im_end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""


WORDS = """
the of and to in is you that it he was for on are as with his they I at be this have from or one had by word
but not what all were we when your can said there use an each which she do how their if will up other about
out many then them these so some her would make like him into time has look two more write go see number no
way could people my than first water been call who oil its now find long down day did get come made may part
"""


def corpus() -> list[str]:
    """Text to train a tokenizer on: common words in changing orders, and JSON as tool calls need it."""
    base = WORDS.split()
    lines = []
    for i in range(4000):
        lines.append(" ".join(base[(i * 7 + j * (i % 13 + 1)) % len(base)] for j in range(12)) + ".")
        lines.append(json.dumps({"name": base[i % len(base)], "arguments": {"value": i, "list": [i % 7, True, None]}}))
    return lines


def synthesize(preset: str, seed: int, target: Path) -> None:
    """Write the model into `target`; raises KeyError on an unknown preset."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    size = PRESETS[preset]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[2],
        pad_token=special[0],
        model_max_length=size["context"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=size["hidden"],
        intermediate_size=size["hidden"] * 4,
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        max_position_embeddings=size["context"],
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target, safe_serialization=True)
    fast.save_pretrained(target)
    (target / "SYNTHETIC.md").write_text(
        f"Synthetic model `{preset}`, seed {seed}: random weights, for tests and first runs only.\n", encoding="utf-8"
    )
