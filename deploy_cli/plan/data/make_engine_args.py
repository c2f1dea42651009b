"""Write the list of vLLM's own flags for the version this runs in, as JSON on stdout.

Run inside the vLLM image, where the package is; nothing else is needed:

    docker run --rm --network none -v "$PWD/deploy_cli/plan/data:/data:ro" --entrypoint python IMAGE \
      /data/make_engine_args.py > deploy_cli/plan/data/engine_args-VERSION.json

The flags come from the parser that `vllm serve` itself builds, so the list cannot drift from the program. Builds for
CPU and GPU of one version share the parser. Raises ModuleNotFoundError where vllm moved one of the three modules.
"""

import argparse
import importlib
import inspect
import json
import sys
from typing import Any

SCALARS = {"int": "int", "human_readable_int": "human_int", "human_readable_int_or_auto": "human_int", "float": "float"}
JSON_TYPES = {"loads", "parse_dataclass", "_parse_type", "union_dict_and_str"}


def bare(parse: Any) -> Any:
    """Look through vLLM's "optional" wrapper to the function that reads the value itself."""
    closure = inspect.getclosurevars(parse).nonlocals if inspect.isfunction(parse) else {}
    return bare(closure["return_type"]) if "return_type" in closure else parse


def kind_of(action: argparse.Action) -> str:
    """Name the shape of a flag's value: bool, switch, list, int, human_int, float, json, text or any."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "bool"
    if action.nargs == 0:
        return "switch"
    if action.nargs in ("+", "*"):
        return "list"
    name = getattr(bare(action.type), "__name__", "str")
    if name in JSON_TYPES:
        return "json"
    if name == "str" or action.choices:
        return SCALARS.get(name, "text")
    return SCALARS.get(name, "any")


def describe(action: argparse.Action) -> dict[str, Any]:
    """One flag as data: its kind, its choices where it has any, other spellings where it has any."""
    longs = [o[2:] for o in action.option_strings if o.startswith("--") and not o.startswith("--no-")]
    entry: dict[str, Any] = {"kind": kind_of(action)}
    if action.choices:
        entry["choices"] = sorted(str(c) for c in action.choices if c is not None)
    others = [o for o in action.option_strings if o.startswith("-") and not o.startswith("--")] + longs[1:]
    if others:
        entry["also"] = others
    return entry


def main() -> None:
    """Build vLLM's parser and print what it knows."""
    parser_class = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    parser = importlib.import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser(parser_class())
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager
    version = importlib.import_module("importlib.metadata").version("vllm").split("+")[0]
    flags = {}
    for action in parser._actions:
        longs = [o[2:] for o in action.option_strings if o.startswith("--") and not o.startswith("--no-")]
        if longs and longs[0] != "help":
            flags[longs[0]] = describe(action)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(flags.items()))
    parsers = json.dumps(sorted(tools.list_registered()))
    sys.stdout.write(f'{{"vllm": "{version}",\n"tool_call_parsers": {parsers},\n"flags": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
