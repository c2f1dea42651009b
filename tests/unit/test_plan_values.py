"""Values that a role, an engine or a client would choke on later are refused while nothing was touched yet."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from plan_site import roles
from test_plan_placement import model, site

from deploy_cli.errors import Problem
from deploy_cli.plan import Plan, Unresolved, make_plan, specs
from deploy_cli.plan.schema import check

GPU = {"kind": "nvidia", "model": "L40S", "memory_gib": 44.98, "count": 4}


def told(
    models: list[dict[str, Any]] | None = None, devices: dict[str, Any] | None = None, **variables: Any
) -> list[Problem]:
    """Every problem and warning of a site of one host."""
    outcome = make_plan(site(models or [model("a")], {"gpu1": [{**GPU, **(devices or {})}]}, **variables))
    return outcome.warnings if isinstance(outcome, Plan) else outcome


def errors(*arguments: Any, **variables: Any) -> list[str]:
    return [p.what for p in told(*arguments, **variables) if p.severity == "error"]


@pytest.mark.parametrize(
    ("key", "value"), [("replicas", 2.0), ("tensor_parallel", 2.0), ("port", 9000.0), ("context_length", 1024.0)]
)
def test_a_number_with_a_point_is_not_a_whole_one(key: str, value: float) -> None:
    (what,) = errors([model("a", **{key: value})])
    assert f"`models[0].{key}`" in what


def test_nor_is_it_where_a_role_or_the_devices_want_one() -> None:
    assert errors(devices={"count": 4.0}) == ["`devices[0].count` is a number, not a whole number"]
    assert errors(vllm_port_base=8100.0) == ["`vllm_port_base` cannot be 8100.0"]


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        ("haproxy_port", "99999", False),
        ("haproxy_port", "0", False),
        ("haproxy_port", "9000", True),
        ("haproxy_port", "9" * 5000, False),
        ("haproxy_hold_seconds", "-5", False),
        ("haproxy_hold_seconds", "5", True),
        ("images_min_free_gib", "-1", False),
    ],
)
def test_a_number_written_as_text_keeps_to_the_range(name: str, value: str, fine: bool) -> None:
    options = {n: option for role in roles()[0].values() for n, option in role.items()}
    assert (list(check(value, specs.to_schema(name, options[name]), (name,))) == []) == fine


def test_a_text_where_only_a_number_counts_is_told_once() -> None:
    assert errors([model("a", memory_share="1.2")]) == ["`models[0].memory_share` is text, not a number"]


@pytest.mark.parametrize(
    "key",
    [
        "0123456789abcdef-secret\n",
        " 0123456789abcdef-secret",
        "0123456789abcdef\nsecret",
        "0123456789abcdef\tsecret",
        "0123456789abcdef\x00secret",
        "0123456789abcdef-sécret",
        " " * 20,
    ],
)
def test_a_key_that_no_client_could_send(key: str) -> None:
    (problem,) = told(haproxy_api_keys=[{"id": "a", "key": key}])
    assert "`haproxy_api_keys[0]`" in problem.what and "printf %s" in problem.hint
    assert "0123456789" not in problem.what + problem.hint


@pytest.mark.parametrize(
    "models",
    [
        [model("a", memory_share=1)],
        [model("a", memory_share=0.96)],
        [model("a", replicas=4, memory_share=0.5), model("b", replicas=4, memory_share=0.5)],
    ],
)
def test_a_gpu_whose_memory_is_given_away_to_the_last_is_told(models: list[dict[str, Any]]) -> None:
    plan = make_plan(site(models))
    assert not isinstance(plan, list)
    assert len(found := [w for w in plan.warnings if "0.95" in w.hint]) == len(models)
    assert all("CUDA" in warning.what for warning in found)


def test_shares_up_to_that_are_planned() -> None:
    assert errors([model("a", replicas=8, memory_share=0.475)]) == []
    assert errors([model("a", replicas=4, memory_share=0.95)]) == []
    assert errors([model("a", replicas=4)]) == []


@pytest.mark.parametrize(
    ("capability", "version", "said"),
    [
        ("7.0", None, "vLLM 0.32.0"),
        ("7.0", "v0.20.0", "vLLM 0.20.0"),
        ("7.0", "latest", "vLLM latest"),
        ("6.1", None, "vLLM 0.32.0"),
        ("6.1", "0.19.0", "no release of vLLM"),
        ("7.0", "0.19.0", None),
        ("7.0", "0.32.0-cu129", None),
        ("7.5", None, None),
        ("8.9", None, None),
    ],
)
def test_gpus_that_the_image_has_no_code_for(capability: str, version: str | None, said: str | None) -> None:
    more: dict[str, Any] = {"images_vllm_version": version} if version else {}
    found = [p for p in told(devices={"compute_capability": capability}, **more) if p.severity == "error"]
    assert [str(said) in p.what for p in found] == ([True] if said else [])
    if said and capability == "7.0":
        assert 'images_vllm_version: "0.19.0"' in found[0].hint


def test_an_image_of_ones_own_may_know_an_old_gpu() -> None:
    own = [{"name": "vllm-cuda", "reference": "registry.example/vllm:volta"}]
    assert errors(devices={"compute_capability": "7.0"}, images_overrides=own) == []
    other = [{"name": "haproxy", "reference": "registry.example/haproxy:3"}]
    assert len(errors(devices={"compute_capability": "7.0"}, images_overrides=other)) == 1


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("model_store_dir", "relative/x", "a path"),
        ("model_store_ca_file", "./ca.pem", "a path"),
        ("images_registry_prefix", "https://mirror.example/stack", "without `https://`"),
        ("images_registry_prefix", "mirror example", "without `https://`"),
        ("vllm_shm_size", "lots", "such as 4g"),
        ("vllm_cpu_shm_size", "", "such as 4g"),
        ("vllm_memory_limit", "6 gigabytes", "such as 4g"),
    ],
)
def test_texts_of_roles_that_would_fail_on_a_host(name: str, value: str, hint: str) -> None:
    (problem,) = told(**{name: value})  # type: ignore[arg-type]
    assert f"`{name}`" in problem.what and hint in problem.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("model_store_dir", "/srv/models"), ("model_store_dir", "~/models"), ("model_store_ca_file", "")),
        *(("images_registry_prefix", "mirror.example:5000/stack/"), ("images_registry_prefix", "")),
        *(("vllm_shm_size", "4g"), ("vllm_shm_size", "512MB"), ("vllm_shm_size", 1073741824)),
        *(("vllm_shm_size", "1.5g"), ("vllm_memory_limit", ""), ("vllm_memory_limit", "6G")),
    ],
)
def test_texts_of_roles_that_work(name: str, value: object) -> None:
    assert told(**{name: value}) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["latest", 0.32, "9.9.9"])
def test_a_version_whose_flags_are_not_known_is_told(version: object) -> None:
    (problem,) = told(images_vllm_version=version)
    assert problem.severity == "warning" and "three numbers" in problem.hint
    assert f"the flags of vLLM {version} are not known" in problem.what


def hub(source: str, **more: Any) -> dict[str, Any]:
    return model("a", tool_call_parser="hermes", **{"source": source, "revision": "0" * 40, **more})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (hub("org/Big-Chat-405B-Instruct"), "405 billion"),
        (hub("org/chat-110b"), "110 billion"),
        (hub("org/Mix-8x22B", tensor_parallel=1), "140.8 billion"),
        (hub("org/Big-405B", tensor_parallel=4), "405 billion"),
        (hub("org/small-7B", tensor_parallel=3), "tensor_parallel 3"),
        (hub("org/Qwen3-30B-A3B"), "55.8 GiB, and it gets 41.4 GiB: 0.92 of the memory of 1 GPU"),
        (hub("org/chat-70B", tensor_parallel=2), "70 billion"),
        (hub("org/chat-70B", tensor_parallel=4), None),
        (hub("org/chat-72B-Instruct"), "72 billion"),
        (hub("org/chat-32B", dtype="bfloat16"), "32 billion"),
        (hub("org/chat-32B-AWQ", memory_share=0.1), "16 GiB, and it gets 4.5 GiB: 0.1 of"),
        (hub("org/chat-32B-FP8"), None),
        (hub("org/chat-32B-FP8", memory_share=0.6), "29.8 GiB"),
        (hub("org/chat-32B", engine_args={"quantization": "fp8"}), None),
        (hub("org/chat-72B", engine_args={"quantization": "fp8"}), "67 GiB"),
        (hub("org/chat-72B", engine_args={"quantization": "bitsandbytes"}), None),
        (hub("org/chat-32B", engine_args={"cpu-offload-gb": 40}), None),
        (hub("openai/gpt-oss-20b", memory_share=0.3), None),
        (hub("org/Mix-8x7B", tensor_parallel=2, memory_share=0.93), None),
        (hub("org/Scout-17B-128E", memory_share=0.1), None),
        (hub("org/chat-7B-1000B-tokens"), None),
        (model("a", source="/srv/models-70b/chat-7B", tool_call_parser="hermes"), None),
        (model("a", source="/srv/models/chat-72B/", tool_call_parser="hermes"), "72 billion"),
        (model("a", source="/srv/models/chat-72B-nvfp4", tool_call_parser="hermes"), None),
        (hub("org/chat-v2b"), None),
        (hub("org/Qwen2.5-14B-AWQ"), None),
    ],
)
def test_models_that_cannot_fit_are_told(entry: dict[str, Any], said: str | None) -> None:
    found = told([entry])
    assert [str(said) in p.what and p.severity == "warning" for p in found] == ([True] if said else [])


def test_a_model_of_fewer_bits_by_the_arguments_of_every_engine_fits() -> None:
    assert told([hub("org/chat-32B")], vllm_args=["--quantization=fp8"]) == []
    assert len(told([hub("org/chat-32B")], vllm_args=["--seed", "1"])) == 1


def test_a_share_that_is_too_small_for_the_weights_is_to_be_raised() -> None:
    (problem,) = told([hub("org/chat-14B", memory_share=0.3)])
    assert "raise `memory_share`" in problem.hint and problem.where.endswith("memory_share")


def test_the_choices_are_named() -> None:
    (problem,) = told([model("a", dtype="fp16")])
    assert "`half`" in problem.hint and "`bfloat16`" in problem.hint


def test_what_one_host_writes_right_another_may_write_wrong() -> None:
    """4.0 equals 4, and true equals 1: equal values are not looked at once for that."""
    hosts = {"gpu1": [{"kind": "nvidia", "count": 1}], "gpu2": [{"kind": "nvidia", "count": 1.0}]}
    outcome = make_plan(site([model("a")], hosts))
    assert isinstance(outcome, list) and [p.where for p in outcome] == ["gpu2/devices[0].count"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "a\n"}, "wrong form"),
        ({"aliases": ["b\n"]}, "wrong form"),
        ({"source": "/srv/models/a.gguf"}, "a GGUF file cannot be served"),
        ({"memory_share": 0.4, "engine_args": {"kv-cache-memory-bytes": "8G"}}, "goes before `memory_share`"),
        ({"engine_args": {"prefill-context-parallel-size": 2}}, "belongs to deployctl"),
        ({"engine_args": {"gpu-memory-utilisation": 0.5}}, "`gpu-memory-utilization` belongs to deployctl"),
    ],
)
def test_entries_that_would_fail_later(entry: dict[str, Any], said: str) -> None:
    found = make_plan(site([{"name": "a", "source": "synthetic:tiny-chat", **entry}]))
    assert isinstance(found, list)
    assert said in "".join(f"{problem.what} {problem.hint}" for problem in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "9000"], "`--port` belongs to deployctl"),
        (["--max-num-seqs", "8", "--api-key=hidden-1234"], "`--api-key` belongs to deployctl"),
        (["--tensor-parallel-size=4"], "write `tensor_parallel`"),
        (["-tp", "4"], "`-tp` belongs to deployctl"),
        (["--max_model_len", "99999"], "write `context_length`"),
        (["--no-enable-auto-tool-choice"], "write `tool_call_parser`"),
        (["--bogus"], "vLLM 0.32.0 has no engine argument `--bogus`"),
        (["--max-num-seq", "8"], "did you mean `max-num-seqs`?"),
        (["--no-max-num-seqs"], "has no engine argument `--no-max-num-seqs`"),
        (["--max-num-seqs 8"], "two items of the list"),
        (["64"], "begin with a value"),
    ],
)
def test_arguments_of_every_engine_keep_to_the_same_rules(words: list[str], said: str) -> None:
    (problem,) = told(vllm_args=words)
    assert said in problem.what + problem.hint and problem.where.startswith("gpu1/vllm_args[")
    assert problem.severity == "error" and "hidden" not in problem.what


def test_arguments_of_every_engine_that_vllm_knows() -> None:
    words = ["--max-num-seqs", "64", "--no-enable-chunked-prefill", "--hf-overrides", '{"a": 1}', "-O3", "-q=fp8"]
    words += ["--compilation-config.mode=3", "--seed", "-1", "--max_num_batched_tokens=2k", "--ignore-patterns", "a"]
    assert told(vllm_args=words, vllm_env={"VLLM_LOGGING_LEVEL": "DEBUG"}) == []


def test_environment_of_every_engine_keeps_to_the_same_rules() -> None:
    env = {"VLLM_API_KEY": "hidden", "CUDA_VISIBLE_DEVICES": "0", "HF_TOKEN": "hidden", "OTEL_SERVICE_NAME": "y"}
    found = told(vllm_env=env)
    assert [p.where for p in found] == [f"gpu1/vllm_env.{name}" for name in sorted(env)]
    assert all("belongs to deployctl" in p.what and "hidden" not in p.what + p.hint for p in found)


def test_what_many_hosts_have_from_one_place_is_told_once_and_by_each_ones_version() -> None:
    made = site([model("a")], {"gpu1": [GPU], "gpu2": [GPU]}, vllm_args=["--bogus"])
    (problem,) = make_plan(made)  # type: ignore[misc]
    assert problem.where == "gpu1/vllm_args[0]"
    hosts = {**made.hosts, "gpu1": {**made.hosts["gpu1"], "images_vllm_version": "9.9.9"}}
    found = make_plan(dataclasses.replace(made, hosts=hosts))
    assert [p.where for p in found if p.severity == "error"] == ["gpu2/vllm_args[0]"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tiny-chit", "did you mean `tiny-chat`?"), ("nope", "one of `tiny-chat`, `b`"), ("alias", "one of"), ("b", None)],
)
def test_thresholds_are_for_a_model_that_is_there(name: str, hint: str | None) -> None:
    models = [model("tiny-chat", aliases=["alias"]), model("b")]
    limits = [{"model": "tiny-chat", "itl_p95_ms_max": 5}, {"model": name, "ttft_p95_ms_max": 100}]
    made = site(models, {"gpu1": [GPU], "gpu2": [GPU]}, acceptance_load_thresholds_by_model=limits)
    outcome = make_plan(made)
    found = [] if isinstance(outcome, Plan) else outcome
    assert [p.where for p in found] == ["gpu1/acceptance_load_thresholds_by_model[1].model"] * bool(hint)
    assert not hint or hint in found[0].hint


def test_thresholds_below_nothing_are_refused() -> None:
    limits: Any = [{"model": "a", "ttft_p95_ms_max": -1, "requests_per_second_min": -0.5}]
    found = told(acceptance_load_thresholds_by_model=limits, acceptance_load_e2e_p95_ms_max=-3)
    assert len(found) == 3 and all("at least 0" in p.what for p in found)


@pytest.mark.parametrize(
    ("entry", "what", "hint"),
    [
        ({"replicas": "2"}, "`models[0].replicas` is text, not a whole number or `max`", "take the quotes away"),
        ({"replicas": "mx"}, "`models[0].replicas` cannot be `mx`", "did you mean `max`?"),
        ({"tensor_parallel": "2"}, "is text, not a whole number", "take the quotes away"),
        ({"memory_share": "0.5"}, "is text, not a number", "take the quotes away"),
        ({"tensor_parallel": "1.5"}, "is text, not a whole number", "it is devices"),
        ({"memory_share": "half"}, "is text, not a number", "it is share of each"),
        ({"name": "a b"}, "wrong form", "letters, digits and `. _ / -`"),
        ({"engine_args": {"enforce_eager": "true"}}, "is text, not true or false", "write `enforce-eager: true`"),
        ({"engine_args": {"max_num_seqs": "256"}}, "is text, not a whole number", "write `max-num-seqs: 256`"),
        ({"engine_args": {"watermark": "0.1"}}, "is text, not a number", "write `watermark: 0.1`"),
        ({"engine_args": {"seed": Unresolved("x", facts=True)}}, "cannot be rendered", "write the value itself"),
        ({"engine_args": {"hf-overrides": {"a": [Unresolved("x")]}}}, "cannot be rendered", "correct the template"),
        ({"engine_args": {5: 6}}, "a key of `models[0].engine_args` is a whole number, not text", "in quotes"),
        ({"engine_args": {"--tp": 2}}, "`--tp` belongs to deployctl", "write `tensor_parallel`"),
        ({"engine_args": {"--max_num_seqs": 2}}, "dashes in front", "write `max-num-seqs: <value>`"),
        ({"engine_args": {"-q": "fp8"}}, "dashes in front", "write `quantization: <value>`"),
    ],
)
def test_hints_that_lead_to_what_works(entry: dict[str, Any], what: str, hint: str) -> None:
    (problem,) = told([{**model("a"), **entry}])
    assert what in problem.what and hint in problem.hint


@pytest.mark.parametrize("kind", ["gpu", "GPU", "cuda"])
def test_what_people_call_a_gpu(kind: str) -> None:
    assert [p.hint for p in told(devices={"kind": kind})] == ["did you mean `nvidia`?"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"lora-modules": ["a=/model/a"]}, "cannot be reached through the gateway yet"),
        ({"tokenizer": "org/other"}, "`tokenizer` names what is not in the container"),
        ({"tokenizer": "gpt2"}, "not in the container"),
        ({"tool_parser_plugin": "/srv/plugin.py"}, "not in the container"),
        ({"log-config-file": "/modelled.json"}, "not in the container"),
        ({"hf-config-path": "/etc/x"}, "not in the container"),
        ({"speculative_config": {"model": "org/draft", "num_speculative_tokens": 3}}, "not in the container"),
        ({"speculative-config": '{"model": "org/draft"}'}, "not in the container"),
        ({"speculative-config.model": "org/draft"}, "not in the container"),
        ({"spec-model": "org/draft"}, "not in the container"),
        ({"max-num-seqs": 0}, "at least 1"),
        ({"max_num_batched_tokens": -5}, "at least 1"),
        ({"max-num-batched-tokens": "0"}, "at least 1"),
    ],
)
def test_arguments_that_cannot_work_in_the_container(args: dict[str, Any], said: str) -> None:
    (problem,) = told([model("a", engine_args=args)])
    assert said in problem.what + problem.hint and problem.severity == "error"


@pytest.mark.parametrize(
    "args",
    [
        {"tokenizer": "/model", "tool-parser-plugin": "/model/parser.py", "max-num-seqs": 1},
        {"speculative-config": {"method": "ngram", "model": "ngram"}, "max-num-batched-tokens": "2k"},
        {"speculative-config": {"method": "mtp"}, "hf-config-path": "/model/other"},
        {"max-num-batched-tokens": "0.5k"},
        {"speculative-config.model": "/model/draft", "load-format": "safetensors"},
    ],
)
def test_arguments_that_work_in_the_container(args: dict[str, Any]) -> None:
    assert told([model("a", engine_args=args)]) == []


def test_random_weights_are_told() -> None:
    (problem,) = told([model("a", engine_args={"load_format": "dummy"})])
    assert problem.severity == "warning" and "random weights" in problem.what
