"""Every role is whole: values in defaults, meaning in the spec, a verify, a scenario."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from house import ROLES, ROOT, all_options, options, read_yaml, text

UPSTREAM = {"vllm-cuda": "vllm/vllm-openai", "vllm-cpu": "vllm/vllm-openai-cpu"}
UPSTREAM |= {"haproxy": "haproxy", "jaeger": "jaegertracing/jaeger"}
SECRET = re.compile(r"(^|_)(api_)?(key|token|password|passphrase|secret)s?$")


def specs(role: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_spec_name_the_same_variables(role: str) -> None:
    defaults = set(read_yaml(f"roles/{role}/defaults/main.yml") or {})
    assert defaults == set(options(role)), "a value lives in defaults, its meaning in the spec; each needs the other"
    for entry_point in specs(role):
        strangers = set(options(role, entry_point)) - defaults
        assert not strangers, f"entry point {entry_point} knows variables without a default: {sorted(strangers)}"


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_their_role(role: str) -> None:
    defaults = set(read_yaml(f"roles/{role}/defaults/main.yml") or {})
    assert [name for name in sorted(defaults) if not name.startswith(f"{role}_")] == []
    vars_file = ROOT / "roles" / role / "vars/main.yml"
    private = read_yaml(vars_file) if vars_file.exists() else {}
    assert [name for name in sorted(private) if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_spec_says_what_and_leaves_values_to_defaults(role: str) -> None:
    for entry_point in specs(role):
        assert specs(role)[entry_point]["short_description"]
        for name, option in all_options(options(role, entry_point)):
            assert "default" not in option, f"{name}: Ansible never applies a default of the spec"
            assert option.get("description"), f"{name} has no description"
            assert option.get("type"), f"{name} has no type"


@pytest.mark.parametrize("role", ROLES)
def test_secrets_stay_out_of_logs(role: str) -> None:
    for entry_point in specs(role):
        for name, option in all_options(options(role, entry_point)):
            if SECRET.search(name.split(".")[-1]) and option["type"] not in ("int", "float", "bool"):
                assert option.get("no_log") is True, f"{name} is a secret by its name and has no `no_log: true`"


@pytest.mark.parametrize("role", ROLES)
def test_role_has_its_parts(role: str) -> None:
    folder = ROOT / "roles" / role
    for part in ("defaults/main.yml", "meta/argument_specs.yml", "meta/main.yml", "tasks/main.yml", "tasks/verify.yml"):
        assert (folder / part).is_file(), f"roles/{role}/{part} is missing"
    assert read_yaml(f"roles/{role}/meta/main.yml")["dependencies"] == [], "playbooks wire roles, roles do not"


@pytest.mark.parametrize("role", ROLES)
def test_role_ends_with_its_verify(role: str) -> None:
    last = read_yaml(f"roles/{role}/tasks/main.yml")[-1]
    named = last.get("ansible.builtin.import_tasks") or last.get("ansible.builtin.include_tasks")
    assert named == "verify.yml", f"the last step of roles/{role}/tasks/main.yml is {named}"


@pytest.mark.parametrize("role", ROLES)
def test_role_has_a_scenario_with_idempotence_and_check(role: str) -> None:
    scenario = ROOT / "molecule" / role / "molecule.yml"
    assert scenario.is_file(), f"molecule/{role}/molecule.yml is missing"
    sequence: list[str] = []
    # Molecule lays a scenario's settings over those of the project.
    for file in (ROOT / ".config/molecule/config.yml", scenario):
        if file.is_file():
            sequence = (read_yaml(file).get("scenario") or {}).get("test_sequence", sequence)
    assert {"converge", "idempotence", "check"} <= set(sequence), f"test_sequence of molecule/{role}: {sequence}"


def test_scenarios_are_of_roles_or_of_whole_sites() -> None:
    scenarios = {file.parent.name for file in (ROOT / "molecule").glob("*/molecule.yml")}
    named = next(line for line in text("Makefile").splitlines() if line.startswith("SITES := "))
    assert scenarios - {*ROLES} == set(named.split()[2:]), "a scenario is named after its role, or one of SITES"


def test_images_are_named_as_upstream_names_them() -> None:
    catalogue = read_yaml("roles/images/defaults/main.yml")["images_catalogue"]
    assert {image["name"]: image["reference"].rsplit(":", 1)[0] for image in catalogue} == UPSTREAM
    for role in ("haproxy", "jaeger"):
        named = read_yaml(f"roles/{role}/defaults/main.yml")[f"{role}_image"]
        assert named == next(image["reference"] for image in catalogue if image["name"] == role)


def test_what_is_built_has_a_dockerfile() -> None:
    for image in read_yaml("roles/images/defaults/main.yml")["images_catalogue"]:
        if "build" in image:
            assert (ROOT / Path("roles/images/files") / image["build"]["context"] / "Dockerfile").is_file()
