"""The site's variables: their meaning as JSON schema, and JSON schema errors as Problems.

The role variables' meaning lives in each role's argument spec (see specs.py); these few belong to no role.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from deploy_cli.plan.shapes import KeyPath
from deploy_cli.plan.wording import did_you_mean, listing, nearest, shown, type_name

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]*\Z"  # not `$`, which lets a line break at the end pass
_SIGNS = "letters, digits and `. _ / -`, beginning with a letter or digit"
_MEANT = {"gpu": "nvidia", "gpus": "nvidia", "cuda": "nvidia"}
"""What people write for a word that no spelling is near to."""
_NAME = {"type": "string", "pattern": NAME, "maxLength": 96}

MODEL: dict[str, Any] = {
    "type": "object",
    "description": "a mapping with at least `name` and `source`",
    "additionalProperties": False,
    "required": ["name", "source"],
    "properties": {
        "name": {**_NAME, "description": f"what a client sends as `model`: {_SIGNS}"},
        "source": {
            "type": "string",
            "minLength": 1,
            "description": "a hub id `org/name`, an absolute path, or `synthetic:<preset>`",
        },
        "revision": {
            "type": "string",
            "pattern": NAME,
            "description": "the commit of a hub model, 40 hexadecimal digits, in quotes if all are digits",
        },
        "replicas": {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 4096}, {"const": "max"}],
            "description": "a whole number of at least 1, or `max` for every device that is left",
        },
        "aliases": {"type": "array", "items": _NAME, "description": "a list of further names clients may send"},
        "tensor_parallel": {
            "type": "integer",
            "minimum": 1,
            "maximum": 64,
            "description": "devices that one instance spans, a whole number of at least 1",
        },
        "context_length": {
            "type": "integer",
            "minimum": 16,
            "maximum": 16_777_216,
            "description": "the longest request, in tokens (prompt and answer together)",
        },
        "memory_share": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "share of each GPU's memory that one instance takes, above 0 and at most 0.95",
        },
        "tool_call_parser": {
            "type": "string",
            "minLength": 1,
            "description": "name of one of vLLM's tool call parsers",
        },
        "chat_template": {
            "type": "string",
            "minLength": 1,
            "description": "path of a Jinja chat template on the control node",
        },
        "port": {
            "type": "integer",
            "minimum": 1024,
            "maximum": 65535,
            "description": "TCP port of the first instance, 1024 to 65535; the others count up from it",
        },
        "dtype": {
            "enum": ["auto", "bfloat16", "float", "float16", "float32", "half"],
            "description": "the number format of the weights",
        },
        "engine_args": {
            "type": "object",
            "propertyNames": {"type": "string"},
            "description": "vLLM flags without the leading dashes, each with its value",
        },
        "env": {
            "type": "object",
            "propertyNames": {"type": "string"},
            "additionalProperties": {
                "type": ["string", "number"],
                "description": "a text, in quotes where YAML would read another type",
            },
            "description": "environment variables of the engine's container, each a text",
        },
    },
}

DEVICE: dict[str, Any] = {
    "type": "object",
    "description": "a mapping with at least `kind` and `count`",
    "additionalProperties": False,
    "required": ["kind", "count"],
    "properties": {
        "kind": {"enum": ["cpu", "nvidia"], "description": "what an engine runs on"},
        "model": {"type": "string", "minLength": 1, "description": "the GPU's product name"},
        "memory_gib": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 4096,
            "description": "memory of each in GiB",
        },
        "count": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1024,
            "description": "how many of them this host holds (kind cpu: how many engines it may run)",
        },
        "compute_capability": {
            "type": "string",
            "pattern": r"^\d{1,2}\.\d\Z",
            "description": 'such as "8.9", in quotes',
        },
        "numa_node": {"type": "integer", "minimum": 0, "maximum": 64, "description": "number of the NUMA node"},
    },
}

SITE: dict[str, dict[str, Any]] = {
    "models": {
        "type": "array",
        "minItems": 1,
        "items": MODEL,
        "description": "a list of models, each with at least `name` and `source`",
    },
    "devices": {
        "type": "array",
        "minItems": 1,
        "items": DEVICE,
        "description": "a list of what the host holds, such as `- {kind: nvidia, count: 4}`",
    },
    "site_address": {
        "type": "string",
        "minLength": 1,
        "pattern": r"^[A-Za-z0-9][A-Za-z0-9.:-]*\Z",
        "description": "name or address by which the other hosts reach this one",
    },
}

_TYPE_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_RANGES = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def check(value: Any, schema: dict[str, Any], root: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield (path, what, hint) for everything about `value` that the schema refuses; never raises for bad data."""
    for error in _validator()(schema).iter_errors(value):
        yield from _explain(error, root)


@lru_cache
def _validator() -> Any:
    """JSON schema as YAML and Ansible need it: 4.0 is no whole number, and a number written as text is a number."""
    from jsonschema import Draft202012Validator, validators  # 60 ms to import: only when something is checked

    def whole(_checker: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def ranged(rule: str) -> Any:
        plain = Draft202012Validator.VALIDATORS[rule]

        def compare(validator: Any, limit: Any, value: Any, schema: dict[str, Any]) -> Iterator[Any]:
            # Where a type is named, a text was refused by it already.
            if isinstance(value, str) and "type" not in schema and NUMBER.fullmatch(value):
                value = float(value)
            yield from plain(validator, limit, value, schema) or ()

        return compare

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", whole)
    extend: Any = validators.extend
    return extend(Draft202012Validator, {rule: ranged(rule) for rule in _RANGES}, type_checker=types)


def _explain(error: Any, root: KeyPath, meaning: str = "") -> Iterator[tuple[KeyPath, str, str]]:
    path: KeyPath = (*root, *error.absolute_path)
    name = label(path)
    meaning = str(error.schema.get("description", meaning))
    rule, value = error.validator, error.instance
    if rule == "additionalProperties" and error.schema.get("additionalProperties") is False:
        known = error.schema.get("properties", {})
        for key in [k for k in value if k not in known]:
            hint = did_you_mean(str(key), known, f"known here: {listing(sorted(known))}")
            yield (*path, key), f"unknown key `{key}` in {name}", hint
    elif rule == "required":
        for key in [k for k in error.validator_value if k not in value]:
            # `required` yields one error per missing key, each naming it first.
            if error.message.startswith(repr(key)):
                said = error.schema["properties"].get(key, {}).get("description", "")
                yield path, f"{name} has no `{key}`", f"add `{key}`: {said}" if said else f"add `{key}`"
    elif rule == "type" and "propertyNames" in error.absolute_schema_path:
        yield path, f"a key of {name} is {type_name(value)}, not text", "write a name, in quotes if it is all digits"
    elif rule == "anyOf" and (ranged := [e for e in error.context if e.validator in _RANGES]):
        yield from _explain(ranged[0], root, meaning)
    else:
        said, near = _say(error, path)
        hint = f"it is {meaning}" if meaning else _plain_hint(rule, error)
        if rule == "enum":
            hint = f"one of {listing(_choices(error))}" + (f"; {hint}" if meaning else "")
        if _is_quoted(error):
            hint = f"take the quotes away; {hint}"
        if near:
            hint = f"did you mean `{near}`?"
        yield path, f"{name} {said}", hint


def _say(error: Any, path: KeyPath) -> tuple[str, str | None]:
    """What is wrong with one value, and the word that was probably meant."""
    rule, value = error.validator, error.instance
    if rule == "type" or (rule == "anyOf" and (not isinstance(value, (int, float, str)) or _is_quoted(error))):
        return f"is {type_name(value)}, not {_wanted_type(error)}", None
    if rule in ("enum", "const", "anyOf"):
        choices = _choices(error)
        meant = _MEANT.get(value.lower()) if isinstance(value, str) else None
        near = meant if meant in choices else nearest(value, choices) if isinstance(value, str) else None
        return f"cannot be {shown(path, value)}", near
    if rule in _RANGES:
        return f"is {shown(path, value)}; it must be {_RANGES[rule]} {error.validator_value}", None
    if rule in ("minItems", "minLength"):
        return "is empty", None
    if rule == "maxLength":
        return f"is longer than {error.validator_value} characters", None
    if rule == "pattern":
        return f"has a value of the wrong form: {shown(path, value)}", None
    return f"is not valid ({rule})", None


def _is_quoted(error: Any) -> bool:
    """Whether a number is written as text where only the number counts."""
    kinds = [part.get("type") for part in (error.schema, *error.schema.get("anyOf", []))]
    form = NUMBER if "number" in kinds else re.compile("-?[0-9]+") if "integer" in kinds else None
    return form is not None and isinstance(error.instance, str) and form.fullmatch(error.instance) is not None


def _plain_hint(rule: str, error: Any) -> str:
    """A hint for a place whose meaning is not written down."""
    if rule == "pattern" and error.validator_value == NAME:
        return _SIGNS
    if rule in ("enum", "const"):
        return f"one of {listing(_choices(error))}"
    if rule in _RANGES:
        return f"it must be {_RANGES[rule]} {error.validator_value}"
    return f"write {_wanted_type(error)}" if rule in ("type", "anyOf") else "correct the value"


def _choices(error: Any) -> list[str]:
    """The fixed words that the place accepts."""
    if error.validator == "anyOf":
        parts = error.validator_value
        return [str(c) for part in parts for c in part.get("enum", [part["const"]] if "const" in part else [])]
    return [str(v) for v in error.validator_value] if error.validator == "enum" else [str(error.validator_value)]


def _wanted_type(error: Any) -> str:
    if error.validator == "anyOf":
        words = [_TYPE_WORDS[part["type"]] for part in error.validator_value if part.get("type") in _TYPE_WORDS]
        return " or ".join([*words[:1], *(f"`{c}`" for c in _choices(error))])
    wanted = error.validator_value
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    return " or ".join(_TYPE_WORDS.get(n, n) for n in names)


def label(path: KeyPath) -> str:
    """A key path as a reader would write it: `models[0].name`."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    return f"`{text}`"
