"""The planner's parts by themselves: flags, names, specs, files, wording, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_site import roles

from deploy_cli import errors
from deploy_cli.plan import catalogue, collect, engine_args, naming, sources, specs, wording
from deploy_cli.plan.schema import SITE, check

VERSION = "0.32.0"


def test_the_list_of_flags_is_vllms_own() -> None:
    data = engine_args.known(VERSION)
    assert data is not None
    assert data["vllm"] == VERSION
    assert len(data["flags"]) > 250
    assert data["flags"]["tensor-parallel-size"] == {"kind": "int", "also": ["-tp"]}
    assert data["flags"]["enable-prefix-caching"] == {"kind": "bool"}
    assert data["flags"]["max-num-queued-reqs"] == {"kind": "int"}
    assert "fp8" in data["flags"]["kv-cache-dtype"]["choices"]


def test_every_owned_flag_exists_in_some_known_version() -> None:
    """A typing error in the list of owned flags would let the flag through."""
    flags = {f for v in engine_args.versions() for f in (engine_args.known(v) or {})["flags"]}
    assert set(engine_args.OWNED) <= flags


def test_every_parser_of_the_catalogue_is_one_of_vllms() -> None:
    data = engine_args.known(VERSION)
    assert data is not None
    parsers = {p for _, p in catalogue.TOOL_CALL_PARSERS if p} | {
        p.tool_call_parser for p in catalogue.PRESETS.values()
    }
    assert parsers <= set(data["tool_call_parsers"])


@pytest.mark.parametrize("version", ["9.9.9", "", "../../etc/passwd", "0.32.0\n"])
def test_a_version_without_a_list(version: str) -> None:
    assert engine_args.known(version) is None


@pytest.mark.parametrize(
    ("args", "argv"),
    [
        ({"max_num_seqs": 8}, ["--max-num-seqs", "8"]),
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enforce-eager": False}, ["--no-enforce-eager"]),
        ({"aggregate-engine-logging": False}, []),
        ({"aggregate-engine-logging": True}, ["--aggregate-engine-logging"]),
        ({"ignore-patterns": ["a", "b"]}, ["--ignore-patterns", "a", "b"]),
        ({"hf-overrides": {"b": 1, "a": [2]}}, ["--hf-overrides", '{"a":[2],"b":1}']),
        ({"hf_overrides": '{"a": 1}'}, ["--hf-overrides", '{"a": 1}']),
        ({"compilation_config.use_inductor": True}, ["--compilation-config.use_inductor", "true"]),
        ({"max-num-batched-tokens": "2k"}, ["--max-num-batched-tokens", "2k"]),
    ],
)
def test_arguments(args: dict[str, object], argv: list[str]) -> None:
    assert list(engine_args.check_args(args, VERSION, ())) == []
    assert engine_args.to_argv(args, VERSION) == argv


def test_names() -> None:
    assert naming.instance("Qwen/Qwen2.5_14B", 3) == "qwen-qwen2.5-14b-3"
    assert naming.pool("Qwen/Qwen2.5_14B") == "qwen-qwen2-5-14b"
    assert naming.store_folder("synthetic", "synthetic:tiny-chat", None) == "synthetic-tiny-chat"
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert naming.store_folder("hub", "Qwen/X", commit) == "Qwen--X--0123456789ab"
    branches = {naming.store_folder("hub", "Qwen/X", b) for b in ("a/b", "a-b", "a.b")}
    assert len(branches) == 3
    assert naming.store_folder("path", "/srv/a", None) != naming.store_folder("path", "/other/a", None)


@pytest.mark.parametrize(
    ("source", "parser"),
    [
        ("Qwen/Qwen2.5-14B-Instruct-AWQ", "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3_json"),
        ("mistralai/Mistral-Large-Instruct-2411", "mistral"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None),
        ("google/gemma-2-27b-it", None),
    ],
)
def test_tool_call_parser_of_a_family(source: str, parser: str | None) -> None:
    assert catalogue.tool_call_parser(source) == parser


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("models", True),
        ("haproxy_port", True),
        ("my_models", True),
        ("site_name", True),
        ("ansible_user", True),
        ("__vllm_secret", True),
        ("vllm", True),
        ("Models", False),
        ("model", False),
        ("site_adress", False),
        ("vllm_prt_base", False),
        ("ha_proxy_port", False),
    ],
)
def test_names_of_variables(name: str, fine: bool) -> None:
    assert (specs.unknown_name(name, roles()[0], SITE) is None) == fine


@pytest.mark.parametrize(
    ("option", "value", "fine"),
    [
        ({"type": "int"}, 5, True),
        ({"type": "int"}, "5", True),
        ({"type": "int"}, "five", False),
        ({"type": "int"}, True, False),
        ({"type": "bool"}, "yes", True),
        ({"type": "bool"}, "maybe", False),
        ({"type": "str"}, 5, True),
        ({"type": "str"}, True, False),
        ({"type": "path"}, ["/x"], False),
        ({"type": "list", "elements": "int"}, [1, "2"], True),
        ({"type": "list", "elements": "int"}, [1, "x"], False),
        ({"type": "list", "elements": "str", "choices": ["a"]}, ["a"], True),
        ({"type": "list", "elements": "str", "choices": ["a"]}, ["b"], False),
        ({"type": "dict"}, {"a": 1}, True),
        ({"type": "dict", "options": {"a": {"type": "int", "required": True}}}, {"a": 1}, True),
        ({"type": "dict", "options": {"a": {"type": "int", "required": True}}}, {}, False),
        ({"type": "dict", "options": {"a": {"type": "int"}}}, {"b": 1}, False),
        ({"type": "raw"}, {"anything": [1]}, True),
        ({}, "text", True),
    ],
)
def test_a_spec_as_schema(option: dict[str, object], value: object, fine: bool) -> None:
    assert (list(check(value, specs.to_schema("x_y", option), ("x_y",))) == []) == fine


def test_every_role_default_passes_its_own_spec() -> None:
    """A spec that refuses its role's default would refuse what Ansible takes."""
    found, defaults = roles()
    for role, options in found.items():
        for name in [n for n in options if n in defaults]:
            value = defaults[name]
            if name == "haproxy_api_keys" or (isinstance(value, str) and "{{" in value):
                continue
            assert list(check(value, specs.to_schema(name, options[name]), (name,))) == [], f"{role}: {name}"


def test_files_ansible_would_read(tmp_path: Path) -> None:
    for name in ("a.yml", "b/main.yml", "b/.hidden.yml", "b/x/deep.yaml", "b/notes.txt", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x: 1\n")
    found = {g: [str(p.relative_to(tmp_path)) for p in sources.vars_files(tmp_path, g)] for g in "abcd"}
    assert found == {"a": ["a.yml"], "b": ["b/main.yml", "b/x/deep.yaml"], "c": ["c"], "d": []}


@pytest.mark.parametrize("text", ["", "a: 1\nb: {a: 1}\n", "- a\n- a\n", "a: &x [*x]\n", "<<: {a: 1}\n<<: {b: 1}\n"])
def test_texts_without_a_key_twice(text: str) -> None:
    assert list(sources.check_text(text, "f.yml")) == []


def test_a_key_three_times_is_told_twice() -> None:
    found = list(sources.check_text("a:\n  b: 1\n  b: 2\n  b: 3\n", "f.yml"))
    assert [p.where for p in found] == ["f.yml:3", "f.yml:4"]


def test_a_file_that_is_no_yaml_is_told_with_its_line() -> None:
    found = list(sources.check_text("a: [\nb: 1\n", "f.yml"))
    assert len(found) == 1
    assert found[0].where.startswith("f.yml:")
    assert found[0].what.startswith(sources.UNREADABLE)


def test_another_sites_broken_file_is_not_this_ones_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "other.yml").write_text("a: [\n")
    (tmp_path / "x.yml").write_text("all: {children: {mine: {hosts: {h: }}}}\n")
    monkeypatch.chdir(tmp_path)
    assert sources.unreadable("x.yml") == []
    (tmp_path / "group_vars" / "mine.yml").write_text("a: [\n")
    assert len(sources.unreadable("x.yml")) == 1
    assert sources.unreadable("nowhere.yml") == []


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("models", 0, "name"), "a b", "`a b...`"),
        (("models", 0, "name"), "abc", "`abc`"),
        (("models", 0, "env", "A"), "abc", "text (not shown)"),
        (("haproxy_api_keys", 0, "key"), "abc", "text (not shown)"),
        (("models", 0, "engine_args", "hf-token"), "abc", "text (not shown)"),
        (("x",), True, "true"),
        (("x",), None, "empty"),
        (("x",), "", "empty text"),
        (("x",), [1], "a list"),
    ],
)
def test_values_in_messages(path: tuple[str | int, ...], value: object, text: str) -> None:
    assert wording.shown(path, value) == text


def test_problems_as_text() -> None:
    found = [errors.Problem("a.yml:1", "odd", "look", "warning"), errors.Problem("b.yml:2", "wrong", "right")]
    text = errors.render_problems(found, "x.yml")
    assert text.splitlines() == [
        "1 problem and 1 warning in x.yml; nothing was touched:",
        "",
        "Error: b.yml:2",
        "  wrong",
        "  Hint: right",
        "",
        "Warning: a.yml:1",
        "  odd",
        "  Hint: look",
    ]
    assert errors.render_problems(found[:1]).startswith("1 warning:")
    assert errors.render_problems([]) == "No problem"


def test_exit_codes_follow_the_tree() -> None:
    codes = {e.__name__: int(e.exit_code) for e in (errors.DeployctlError, errors.UsageError, errors.PlanRefusedError)}
    assert codes == {"DeployctlError": 1, "UsageError": 2, "PlanRefusedError": 2}
    assert errors.SiteLockedError.exit_code == 2
    assert errors.RunCancelledError.exit_code == errors.HostFailedError.exit_code == 3
    assert (errors.NotAcceptedError.exit_code, errors.DriftedError.exit_code) == (4, 5)
    drawn = errors.__doc__ or ""
    for name in [n for n in vars(errors) if n.endswith("Error")]:
        assert name in drawn


def test_a_path_that_only_root_may_look_at_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not collect._there("/nobody/has/this")

    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert collect._there("/srv/models/a")
