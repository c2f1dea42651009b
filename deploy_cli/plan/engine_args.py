"""A model's `engine_args` and `env`, checked against vLLM's own list of flags and turned into an argument list.

What a site gives to every engine (`vllm_args`, `vllm_env`) keeps to the same rules: it comes last, and so wins.

The list is data/engine_args-<version>.json, written by data/make_engine_args.py from the vllm package of that version.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from deploy_cli.plan.shapes import KeyPath, Unresolved
from deploy_cli.plan.wording import did_you_mean, listing, nearest, shown, type_name

Finding = tuple[KeyPath, str, str]
DATA = Path(__file__).parent / "data"

# Flags that belong to deployctl, and what to write instead.
OWNED = {
    "model": "write `source`",
    "served-model-name": "write `name` and `aliases`",
    "revision": "write the entry's `revision`",
    "tensor-parallel-size": "write `tensor_parallel`",
    "max-model-len": "write `context_length`",
    "gpu-memory-utilization": "write `memory_share`",
    "dtype": "write the entry's `dtype`",
    "tool-call-parser": "write `tool_call_parser`",
    "enable-auto-tool-choice": "write `tool_call_parser`",
    "chat-template": "write the entry's `chat_template`",
    "port": "write the entry's `port`",
    "host": "the instance is bound where only the gateway reaches it",
    "uds": "the gateway reaches instances over TCP",
    "root-path": "the gateway serves the paths as vLLM names them",
    "api-key": "keys belong to the gateway: write `haproxy_api_keys`",
    "ssl-keyfile": "TLS ends at the gateway",
    "ssl-certfile": "TLS ends at the gateway",
    "ssl-ca-certs": "TLS ends at the gateway",
    "ssl-cert-reqs": "TLS ends at the gateway",
    "ssl-ciphers": "TLS ends at the gateway",
    "enable-ssl-refresh": "TLS ends at the gateway",
    "otlp-traces-endpoint": "every instance sends its spans to the site's Jaeger",
    "shutdown-timeout": "the vllm role keeps it below Docker's stop grace: see its variables",
    "config": "a file of settings would go round the plan: write them under `engine_args`",
    "headless": "every instance has its own API server",
    "grpc": "the gateway speaks HTTP",
    "grpc-port": "the gateway speaks HTTP",
    "device-ids": "the plan gives each instance its devices",
    "hf-token": "models are downloaded beforehand by the model_store role; the instance is offline",
    "download-dir": "models are downloaded beforehand by the model_store role; the instance is offline",
    "nnodes": "one instance runs on one host",
    "node-rank": "one instance runs on one host",
    "master-addr": "one instance runs on one host",
    "master-port": "one instance runs on one host",
    "data-parallel-size": "write `replicas`: each is an instance of its own behind the gateway",
    "pipeline-parallel-size": "write `tensor_parallel`; the plan counts one device for each part",
    "prefill-context-parallel-size": "the plan counts `tensor_parallel` devices for an instance, and no more",
    "lora-modules": "adapters cannot be reached through the gateway yet: it knows the names of `models` only",
    "disable-log-stats": "tracing and metrics need the statistics",
}
# Files and models that the engine reads: it is offline, and of the host's folders it sees its model's.
IN_MODEL = ("tokenizer", "hf-config-path", "tool-parser-plugin", "log-config-file")
AT_LEAST_ONE = ("max-num-seqs", "max-num-batched-tokens")
# Environment variables that would undo what deployctl sets, or put a secret where it can be read.
OWNED_ENV = {
    "VLLM_API_KEY": "keys belong to the gateway: write `haproxy_api_keys`",
    "OPENAI_API_KEY": "an engine needs no client's key",
    "HF_TOKEN": "models are downloaded beforehand; the instance is offline and needs no token",
    "HUGGING_FACE_HUB_TOKEN": "models are downloaded beforehand; the instance is offline and needs no token",
    "HF_HUB_OFFLINE": "the instance is offline on purpose: its model lies in the model store",
    "TRANSFORMERS_OFFLINE": "the instance is offline on purpose: its model lies in the model store",
    "HF_HOME": "the model lies in the model store",
    "CUDA_VISIBLE_DEVICES": "the plan gives each instance its devices",
    "NVIDIA_VISIBLE_DEVICES": "the plan gives each instance its devices",
    "VLLM_SERVER_DEV_MODE": "it opens endpoints without a key that can stop the engine",
    "VLLM_HOST_IP": "one instance runs on one host",
    "VLLM_PORT": "write the entry's `port`",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "a dead engine must end its container, so that Docker starts it again",
    "PATH": "it belongs to the image",
    "PYTHONPATH": "it belongs to the image",
    "LD_PRELOAD": "it belongs to the image",
    "LD_LIBRARY_PATH": "it belongs to the image",
}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HUMAN_INT = re.compile(r"-?\d+(\.\d+)?[kmgtKMGT]?i?|auto")
_KIND_WORDS = {
    "int": "a whole number",
    "human_int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "switch": "true or false",
    "text": "text",
}


_QUOTED = {
    "bool": "true|false",
    "switch": "true|false",
    "int": r"-?\d{1,18}",
    "float": r"-?\d{1,18}(\.\d{1,18})?",
}


@lru_cache(maxsize=4)
def known(version: str) -> dict[str, Any] | None:
    """vLLM's flags and parsers for a version such as `0.32.0`; None when no list was made for it."""
    path = DATA / f"engine_args-{version}.json"
    if not re.fullmatch(r"[\w.]{1,40}", version) or not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def versions() -> list[str]:
    """The vLLM versions whose flags are known."""
    return sorted(p.stem.removeprefix("engine_args-") for p in DATA.glob("engine_args-*.json"))


def flag_of(key: str) -> str:
    """The flag's name as vLLM writes it, from the user's spelling: `max_num_seqs` is `max-num-seqs`."""
    head, dot, tail = key.partition(".")
    return head.replace("_", "-") + dot + tail


def check_args(args: Mapping[str, Any], version: str, root: KeyPath) -> Iterator[Finding]:
    """Yield (path, what, hint) for every entry that this vLLM version refuses or deployctl owns."""
    data = known(version)
    flags = data["flags"] if data else {}
    seen: dict[str, str] = {}
    for key, value in args.items():
        path: KeyPath = (*root, key)
        flag = flag_of(key.lstrip("-"))
        spelled = _spelled(flag, flags)
        owned = spelled.partition(".")[0].removeprefix("no-")
        if key.startswith("-") and owned not in OWNED:
            what = f"engine argument `{key}` is written with dashes in front"
            yield path, what, f"write `{spelled}: <value>`"
            continue
        if flag in seen:
            yield path, f"engine argument `{flag}` is given twice, as `{seen[flag]}` and as `{key}`", "keep one of them"
            continue
        seen[flag] = key
        if owned in OWNED:
            yield path, f"engine argument `{key}` belongs to deployctl", OWNED[owned]
        elif data:
            yield from _check_one(path, key, spelled, value, flags, version)


def check_words(words: Sequence[Any], version: str, root: KeyPath) -> Iterator[Finding]:
    """Yield (path, what, hint) for every flag of an argument list that this vLLM version refuses or deployctl owns.

    Flags are judged and told, values never: one may be a secret.
    """
    data = known(version)
    flags = data["flags"] if data else {}
    for place, word in enumerate(words):
        path: KeyPath = (*root, place)
        if not isinstance(word, str) or not re.match(r"--?[A-Za-z]", word):
            if place == 0 and isinstance(word, (str, int, float)):
                yield path, "the arguments begin with a value", "begin with its flag, such as `--max-num-seqs`"
            continue
        left = word.partition("=")[0]
        key = (left.split() or [left])[0]
        spelled = _spelled(flag_of(key.lstrip("-")), flags)
        base, dot, _ = spelled.partition(".")
        plain = base.removeprefix("no-")
        entry = flags.get(base) or ({"kind": "no"} if flags.get(plain, {}).get("kind") == "bool" else None)
        if plain in OWNED:
            yield path, f"engine argument `{key}` belongs to deployctl", OWNED[plain]
        elif left != key:
            yield path, f"engine argument `{key}` and its value are one text", "make them two items of the list"
        elif data and not key.startswith("-O") and (entry is None or (dot and entry["kind"] != "json")):
            yield path, f"vLLM {version} has no engine argument `{key}`", _nearest_hint(base, flags)


def _spelled(flag: str, flags: Mapping[str, Any]) -> str:
    """The long name behind another spelling (`tp`, `device-memory-utilization`)."""
    for name, entry in flags.items():
        if flag in [o.lstrip("-") for o in entry.get("also", [])]:
            return name
    return flag


def _check_one(
    path: KeyPath, key: str, flag: str, value: Any, flags: Mapping[str, Any], version: str
) -> Iterator[Finding]:
    base, dot, _ = flag.partition(".")
    entry = flags.get(base)
    if entry is None or (dot and entry["kind"] != "json"):
        what = f"vLLM {version} has no engine argument `{key}`"
        if flag.startswith("no-") and flag[3:] in flags:
            yield path, what, f"write `{flag[3:]}: false`"
        else:
            yield path, what, _nearest_hint(base, flags)
        return
    if flag_of(key) != flag:
        yield path, f"engine argument `{key}` is a short form", f"write `{flag}`"
    elif value is None:
        yield path, f"engine argument `{key}` has no value", "for a flag without a value, write `true`"
    elif not dot:
        yield from _check_value(path, key, value, entry)
        yield from _check_use(path, key, flag, value)
    elif flag == "speculative-config.model":
        yield from _check_use(path, key, flag, {"model": value})


def _nearest_hint(flag: str, flags: Mapping[str, Any]) -> str:
    near = nearest(flag, flags)
    hint = f"`{near}` belongs to deployctl: {OWNED[near]}" if near in OWNED else ""
    return hint or did_you_mean(flag, flags, "the arguments are those of `vllm serve --help=all`")


def _check_value(path: KeyPath, key: str, value: Any, entry: Mapping[str, Any]) -> Iterator[Finding]:
    if _waits(value):
        return  # told where templates are looked at
    kind = entry["kind"]
    if isinstance(value, str) and kind in _QUOTED and re.fullmatch(_QUOTED[kind], value):
        what = f"engine argument `{key}` is text, not {_KIND_WORDS[kind]}"
        yield path, what, f"take the quotes away: write `{flag_of(key)}: {value}`"
        return
    fits = {
        "bool": isinstance(value, bool),
        "switch": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "human_int": not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, str) and _HUMAN_INT.fullmatch(value) is not None)),
        "text": isinstance(value, (str, int, float)) and not isinstance(value, bool),
        "json": isinstance(value, (dict, list, str)) and _is_json(value),
        "list": isinstance(value, (str, int, float, list)) and not isinstance(value, bool),
    }.get(kind, True)
    if not fits:
        wanted = _KIND_WORDS.get(kind, "a mapping or JSON" if kind == "json" else "a list")
        given = shown(path, value) if kind != "json" else type_name(value)
        yield path, f"engine argument `{key}` cannot be {given}", f"it takes {wanted}"
        return
    choices = entry.get("choices", [])
    for item in value if isinstance(value, list) else [value]:
        if choices and str(item) not in choices:
            near = nearest(str(item), choices)
            hint = f"did you mean `{near}`?" if near else f"one of {listing(choices)}"
            yield path, f"engine argument `{key}` cannot be {shown(path, item)}", hint


def _check_use(path: KeyPath, key: str, flag: str, value: Any) -> Iterator[Finding]:
    """What vLLM would read, but cannot work with in the container."""
    file = value if flag in IN_MODEL or (flag == "spec-model" and "/" in str(value)) else None
    if flag.startswith("speculative-config") and isinstance(value, (str, dict)) and _is_json(value):
        draft = json.loads(value) if isinstance(value, str) else value
        file = draft.get("model") if isinstance(draft, dict) else None
        file = file if "/" in str(file) else None  # `ngram` is a method
    if isinstance(file, str) and not re.match(r"/model(/|\Z)", file):
        what = f"engine argument `{key}` names what is not in the container"
        yield path, what, "put it into the model's folder, which is /model there: the engine is offline"
    number = re.match(r"-?\d+(\.\d+)?", str(value)) if flag in AT_LEAST_ONE and not isinstance(value, bool) else None
    if number and float(number[0]) <= 0:  # 0.5k is 500
        yield path, f"engine argument `{key}` is below 1", "it must be at least 1"


def _waits(value: Any) -> bool:
    """Whether a template in a value could not be rendered."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Unresolved) or any(_waits(part) for part in parts)


def _is_json(value: Any) -> bool:
    """Whether a value can be written as JSON, or a text is JSON."""
    try:
        json.loads(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
    except (ValueError, TypeError):
        return False
    return True


def check_env(env: Mapping[str, Any], root: KeyPath) -> Iterator[Finding]:
    """Yield (path, what, hint) for names that deployctl sets itself or that would leak; never a value."""
    for key in env:
        path: KeyPath = (*root, key)
        upper = key.upper()
        if not _ENV_NAME.fullmatch(key):
            yield path, f"`{key}` is no name of an environment variable", "letters, digits and `_`, no digit first"
        elif upper in OWNED_ENV:
            yield path, f"environment variable `{key}` belongs to deployctl", OWNED_ENV[upper]
        elif upper.startswith("OTEL_"):
            yield path, f"environment variable `{key}` belongs to deployctl", "tracing is set by the vllm role"


def check_parser(name: str, version: str, path: KeyPath) -> Iterator[Finding]:
    """Yield a finding when this vLLM version has no tool call parser of that name."""
    data = known(version)
    if data and name not in data["tool_call_parsers"]:
        parsers = data["tool_call_parsers"]
        yield (
            path,
            f"vLLM {version} has no tool call parser `{name}`",
            did_you_mean(name, parsers, f"one of {listing(parsers)}"),
        )


def to_argv(args: Mapping[str, Any], version: str) -> list[str]:
    """The argument list of checked `engine_args`, in the user's order. Mappings become JSON with sorted keys."""
    data = known(version)
    flags = data["flags"] if data else {}
    argv: list[str] = []
    for key, value in args.items():
        flag = flag_of(key)
        entry = flags.get(flag.partition(".")[0], {})
        kind = entry.get("kind")
        if isinstance(value, bool) and "." not in flag and kind != "json":
            if value:
                argv.append(f"--{flag}")
            elif kind != "switch":
                argv.append(f"--no-{flag}")
        elif isinstance(value, list) and kind == "list":
            argv += [f"--{flag}", *(str(item) for item in value)]
        elif isinstance(value, (dict, list, bool)):
            argv += [f"--{flag}", json.dumps(value, sort_keys=True, separators=(",", ":"))]
        else:
            argv += [f"--{flag}", str(value)]
    return argv
