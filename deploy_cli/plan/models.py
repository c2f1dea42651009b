"""Checks of the entries of `models` beyond their schema, and each entry with its defaults filled in."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from deploy_cli.plan import catalogue, engine_args, hosts, memory, naming, weights
from deploy_cli.plan.findings import Findings
from deploy_cli.plan.shapes import Device, KeyPath, Model, SiteInput
from deploy_cli.plan.wording import did_you_mean, listing, nearest

_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What the placement needs; an entry with one of these refused is not placed, any other is, so that all is told at once.
_PLACING = ("name", "replicas", "tensor_parallel", "memory_share", "port")


def read(site: SiteInput, home: str, versions: Sequence[str], out: Findings) -> list[Model]:
    """Check every entry of `models` as host `home` sees it; return those that can be placed."""
    entries = site.hosts[home]["models"]
    if not isinstance(entries, list):
        return []
    good = [(i, e) for i, e in enumerate(entries) if isinstance(e, dict)]
    _check_names(home, good, out)
    models = []
    for index, entry in good:
        kind = _check_source(site, home, index, entry, out)
        for version in versions:
            _check_engine(home, index, entry, version, out)
        _check_share(home, index, entry, out)
        _check_template(site, home, index, entry, out)
        if not any(out.is_bad(home, "models", index, key) for key in _PLACING) and isinstance(entry.get("name"), str):
            whole = not out.is_bad(home, "models", index)
            models.append(_model(site, index, entry, kind, versions[0] if whole else None))
    return models


def _check_names(home: str, entries: Sequence[tuple[int, Mapping[str, Any]]], out: Findings) -> None:
    names: dict[str, int] = {}
    pools: dict[str, str] = {}
    for index, entry in entries:
        name = entry.get("name")
        path: KeyPath = ("models", index, "name")
        if not isinstance(name, str) or out.is_bad(home, *path):
            continue
        if name in names:
            first = out.site.where(home, "models", names[name], "name")
            out.add(
                home,
                path,
                f"two models are named `{name}`; the first is at {first}",
                "for more instances of one model write `replicas`; otherwise give each its own name",
            )
            continue
        names[name] = index
        other = pools.setdefault(naming.pool(name), name)
        if other != name:
            out.add(
                home,
                path,
                f"`{name}` and `{other}` would share the pool name `{naming.pool(name)}`",
                "choose a name that differs in more than case and punctuation",
            )
    aliases: dict[str, str] = {}
    for index, entry in entries:
        for place, alias in enumerate(_list(entry.get("aliases"))):
            path = ("models", index, "aliases", place)
            owner = str(entry.get("name"))
            if not isinstance(alias, str):
                continue
            if alias in names:
                out.add(
                    home,
                    path,
                    f"alias `{alias}` of model `{owner}` is the name of a model",
                    "an alias must differ from every model's name",
                )
            elif alias in aliases:
                by = "the same model" if aliases[alias] == owner else f"model `{aliases[alias]}`"
                out.add(
                    home,
                    path,
                    f"alias `{alias}` of model `{owner}` is already an alias of {by}",
                    "an alias can stand for one model only, and once",
                )
            aliases.setdefault(alias, owner)


def _check_source(site: SiteInput, home: str, index: int, entry: Mapping[str, Any], out: Findings) -> str:
    """Check `source`, `revision` and `context_length` together; return the kind of the source."""
    source, path = entry.get("source"), ("models", index, "source")
    if not isinstance(source, str) or out.is_bad(home, *path):
        return "hub"
    if source.startswith("synthetic:"):
        _check_synthetic(home, index, entry, source, out)
        return "synthetic"
    if source.startswith("/"):
        local = all(hosts.is_local(site, host) for host in site.groups.get("serving", ()))
        if source.lower().endswith(".gguf"):
            hint = "name the folder of a model in Hugging Face's form, with config.json and safetensors"
            out.add(home, path, "a GGUF file cannot be served", hint)
        elif local and not site.exists(source):
            out.add(home, path, f"the path `{source}` does not exist", "correct it, or put the model's folder there")
        elif local and not site.exists(posixpath.join(source, "config.json")):
            hint = "name the folder of a model in Hugging Face's form, with config.json and safetensors"
            out.add(home, path, f"`{source}` is no model's folder: it holds no config.json", hint)
        _no_revision(home, index, entry, "a model from a path", out)
        return "path"
    if not _HUB.fullmatch(source) or ".." in source or "--" in source:
        scheme = source.partition(":")[0]
        if source.startswith(("http://", "https://")):
            hint = "write the hub id alone, `org/name`"
        elif ":" in source and nearest(scheme, ["synthetic"]):
            hint = f"did you mean `synthetic:{source.partition(':')[2]}`?"
        elif source.startswith((".", "~")):
            hint = "a path must be absolute"
        else:
            hint = "a hub id `org/name`, an absolute path, or `synthetic:<preset>`"
        out.add(home, path, f"`{source[:60]}` is no source of a model", hint)
        return "hub"
    if re.search(r"[-_.]gguf$", source, re.IGNORECASE):
        hint = "take the repository with the model's safetensors, most often of the same name without `GGUF`"
        out.add(home, path, f"`{source[:60]}` holds GGUF files, which cannot be served", hint)
    _check_revision(home, index, entry, out)
    return "hub"


def _check_synthetic(home: str, index: int, entry: Mapping[str, Any], source: str, out: Findings) -> None:
    name = source.partition(":")[2]
    preset = catalogue.PRESETS.get(name)
    if preset is None:
        hint = did_you_mean(name, catalogue.PRESETS, f"the presets are {listing(catalogue.PRESETS)}")
        out.add(home, ("models", index, "source"), f"there is no synthetic preset `{name[:60]}`", hint)
    elif isinstance(length := entry.get("context_length"), int) and length > preset.context_length:
        what = f"context_length {length} is more than the {preset.context_length} tokens of `{source}`"
        fitting = [p.name for p in catalogue.PRESETS.values() if p.context_length >= length]
        hint = f"use `synthetic:{fitting[0]}`" if fitting else f"write at most {preset.context_length}"
        out.add(home, ("models", index, "context_length"), what, hint)
    _no_revision(home, index, entry, "a synthetic model", out)


def _no_revision(home: str, index: int, entry: Mapping[str, Any], what: str, out: Findings) -> None:
    if "revision" in entry:
        out.add(home, ("models", index, "revision"), f"{what} has no revision", "leave `revision` out")


def _check_revision(home: str, index: int, entry: Mapping[str, Any], out: Findings) -> None:
    path: KeyPath = ("models", index, "revision")
    revision = entry.get("revision")
    if "revision" not in entry:
        out.add(
            home,
            path,
            f"model `{entry.get('name')}` comes from a hub and has no `revision`",
            "pin it: add `revision: <commit>`, the 40 hexadecimal digits that the hub shows for the version you want",
        )
    elif isinstance(revision, str) and not out.is_bad(home, *path) and not _COMMIT.fullmatch(revision):
        if re.fullmatch(r"[0-9a-fA-F]{7,64}", revision):
            out.add(
                home,
                path,
                f"revision `{revision}` has {len(revision)} digits, not the 40 of a commit in lower case",
                "write the whole commit",
            )
        else:
            out.add(
                home,
                path,
                f"revision `{revision}` is a branch or tag, whose content can change",
                "pin the commit it stands for, 40 hexadecimal digits",
                "warning",
            )


def _check_share(home: str, index: int, entry: Mapping[str, Any], out: Findings) -> None:
    """Refuse what vLLM puts above its share of the memory: the other engines on that GPU count on it."""
    for key in _dict(entry.get("engine_args")) if "memory_share" in entry else ():
        if engine_args.flag_of(str(key)) == "kv-cache-memory-bytes":
            what = f"engine argument `{key}` goes before `memory_share`, which the others on its GPU count on"
            out.add(home, ("models", index, "engine_args", key), what, "keep one of the two")


def _check_engine(home: str, index: int, entry: Mapping[str, Any], version: str, out: Findings) -> None:
    root: KeyPath = ("models", index)
    args, env, parser = _dict(entry.get("engine_args")), _dict(entry.get("env")), entry.get("tool_call_parser")
    out.add_all(home, engine_args.check_args(args, version, (*root, "engine_args")))
    out.add_all(home, engine_args.check_env(env, (*root, "env")))
    for key in [key for key, value in args.items() if engine_args.flag_of(key) == "load-format" and value == "dummy"]:
        what = f"model `{entry.get('name')}` answers nonsense: `{key}: dummy` takes random weights for its own"
        out.add(home, (*root, "engine_args", key), what, "leave it out, unless only speed is measured", "warning")
    if isinstance(parser, str) and parser not in ("", "none"):
        out.add_all(home, engine_args.check_parser(parser, version, (*root, "tool_call_parser")))


def check_size(home: str, model: Model, device: Device, everywhere: Sequence[Any], out: Findings) -> None:
    """Warn of what most likely cannot work: a model too large for its GPUs by its name, and an odd span.

    `everywhere`: the arguments that every engine of the device's host gets.
    """
    argv = [str(word) for word in (*model.engine_args, *everywhere)]
    root: KeyPath = ("models", model.position)
    billions, each = weights.billions(model.source), weights.gib_per_billion(model.source, _quantization(argv))
    whole = (device.memory_gib or 0) * model.tensor_parallel
    share = model.memory_share or memory.DEFAULT_GPU_SHARE
    moved = any(word.startswith("--") and "offload" in word for word in argv)  # weights may lie in the host's memory
    known = model.kind in ("hub", "path") and device.kind == "nvidia" and not moved
    if known and 0 < whole * share < billions * each:
        shared = model.memory_share is not None and billions * each < whole * memory.DEFAULT_GPU_SHARE
        out.add(
            home,
            (*root, "memory_share" if shared else "tensor_parallel"),
            f"model `{model.name}` has {billions:.4g} billion weights by its name, about {billions * each:.3g} GiB, "
            f"and it gets {whole * share:.3g} GiB: {share:g} of the memory of {model.tensor_parallel} GPU"
            + ("s" if model.tensor_parallel > 1 else ""),
            ("raise `memory_share`" if shared else "raise `tensor_parallel`")
            + ", or take a smaller model or one with fewer bits a weight",
            "warning",
        )
    if model.tensor_parallel & (model.tensor_parallel - 1):
        out.add(
            home,
            (*root, "tensor_parallel"),
            f"tensor_parallel {model.tensor_parallel} of model `{model.name}` is no power of two",
            "it must divide the model's attention heads, which 2, 4 and 8 nearly always do",
            "warning",
        )


def _quantization(argv: Sequence[str]) -> str:
    """What a command line says of the weights' bits; empty where it says nothing."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("-") else [word])]
    return next((value for name, value in pairwise(words) if name in ("--quantization", "-q")), "")


def _check_template(site: SiteInput, home: str, index: int, entry: Mapping[str, Any], out: Findings) -> None:
    template = entry.get("chat_template")
    if not isinstance(template, str) or not template:
        return
    folder = site.is_folder(_absolute(site, template))
    if folder or not site.exists(_absolute(site, template)):
        out.add(
            home,
            ("models", index, "chat_template"),
            f"the chat template `{template}` {'is a folder' if folder else 'does not exist'}",
            "it is a file on the control node; a relative path begins at the inventory's folder",
        )


def _model(site: SiteInput, index: int, entry: Mapping[str, Any], kind: str, version: str | None) -> Model:
    """The entry as a Model. `version` None: something in it was refused, so it only counts for the placement."""
    name, source = str(entry["name"]), str(entry.get("source", ""))
    preset = catalogue.PRESETS.get(source.partition(":")[2]) if kind == "synthetic" else None
    revision = entry.get("revision") if kind == "hub" else None
    parser = entry.get("tool_call_parser") or (
        preset.tool_call_parser if preset else catalogue.tool_call_parser(source)
    )
    template, replicas = entry.get("chat_template"), entry.get("replicas", 1)
    return Model(
        name=name,
        pool=naming.pool(name),
        source=source,
        kind=kind,
        preset=preset.name if preset else None,
        revision=revision,
        store_name=naming.store_folder(kind, source, str(revision) if revision else None),
        aliases=tuple(_list(entry.get("aliases"))),
        replicas=None if replicas == "max" else replicas,
        tensor_parallel=entry.get("tensor_parallel", 1),
        context_length=entry.get("context_length", preset.context_length if preset else None),
        memory_share=entry.get("memory_share"),
        tool_call_parser=None if parser == "none" else parser,
        chat_template=_absolute(site, template) if isinstance(template, str) else None,
        dtype=entry.get("dtype"),
        port=entry.get("port"),
        engine_args=tuple(engine_args.to_argv(_dict(entry.get("engine_args")), version)) if version is not None else (),
        env={k: str(v) for k, v in _dict(entry.get("env")).items()},
        position=index,
    )


def _absolute(site: SiteInput, path: str) -> str:
    return posixpath.normpath(posixpath.join(site.base, path))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return {k: v for k, v in value.items() if isinstance(k, str)} if isinstance(value, dict) else {}
