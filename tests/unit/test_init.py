"""From recorded looks at hosts to the files of a site, and those through the planner."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plan_site
import pytest
import yaml
from test_plan_ansible import ansible, outcome_of

from deploy_cli.errors import UsageError
from deploy_cli.init import gpus, hosts, report, site, targets, text, write
from deploy_cli.plan import Plan

LOOKS = Path(__file__).parents[1] / "fixtures" / "hosts"


def look(name: str) -> dict[str, Any]:
    """One recorded look."""
    found: dict[str, Any] = json.loads((LOOKS / f"{name}.json").read_text())
    return found


def made(wanted: targets.Wanted, answers: Mapping[str, Mapping[str, Any]]) -> site.Site:
    """The site of these answers; the planner must have nothing against it."""
    found, problems = hosts.found(wanted, answers)
    assert problems == []
    result, refused = site.make(wanted, found, *plan_site.roles())
    assert refused == []
    return result


def written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wanted: targets.Wanted, answers: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, str], Plan]:
    """The files, written, and the plan that was made of them, read back."""
    texts = text.files(made(wanted, answers), f"inventories/{wanted.site}.yml")
    write.write(folder, texts)
    shutil.copy(folder / f"{wanted.site}.yml", folder / plan_site.INVENTORY)
    monkeypatch.chdir(folder)
    plan = plan_site.plan(folder)
    assert isinstance(plan, Plan), plan
    return texts, plan


def seats(plan: Plan) -> list[tuple[str, str, list[int]]]:
    return [(one.model, one.host, one.devices) for one in plan.instances]


def test_a_server_with_four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = targets.wanted("lenovo-sr675", ["root@192.0.2.10"])
    texts, plan = written(tmp_path, monkeypatch, wanted, {"root@192.0.2.10": look("sr675")})
    assert sorted(texts) == [
        "group_vars/lenovo_sr675/main.yml",
        "group_vars/lenovo_sr675/models.yml",
        "lenovo-sr675.yml",
    ]
    chat, light = "qwen2.5-14b-instruct-awq", "qwen2.5-1.5b-instruct"
    assert seats(plan) == [*((chat, "sr675", [gpu]) for gpu in range(4)), (light, "sr675", [0])]
    assert plan.hosts["sr675"]["address"] == "192.0.2.10"
    values = yaml.safe_load(texts["lenovo-sr675.yml"])["all"]["children"]["lenovo_sr675"]["children"]
    server = values["serving"]["hosts"]["sr675"]
    device = {"kind": "nvidia", "model": "L40S", "memory_gib": 44.98, "compute_capability": "8.9", "count": 4}
    assert server == {
        "ansible_host": "192.0.2.10",
        "ansible_user": "root",
        "site_address": "192.0.2.10",
        "devices": [device],
        # The NVMe drive with the most free space, and not the system's disk.
        "model_store_dir": "/srv/nvme1/models",
        "vllm_model_store_dir": "{{ model_store_dir }}",
        "vllm_cache_dir": "/srv/nvme1/vllm-cache",
    }
    inventory = texts["lenovo-sr675.yml"]
    for seen in ("Ubuntu 24.04.1 LTS", "AMD EPYC 9654", "GPU-", "SAMSUNG", "25 Gb/s: 198.51.100.10", "Docker 28.5.1"):
        assert seen in inventory, seen
    assert [warning.what for warning in plan.warnings if "branch or tag" in warning.what]
    assert "pin the commit" in texts["group_vars/lenovo_sr675/models.yml"]


def test_the_same_server_before_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = targets.wanted("bare", ["root@sr675"])
    answers = {"root@sr675": look("sr675-bare")}
    texts, plan = written(tmp_path, monkeypatch, wanted, answers)
    assert [device["count"] for device in plan.hosts["sr675"]["devices"]] == [4]
    assert plan.hosts["sr675"]["devices"][0]["model"] == "L40S"
    assert len(plan.instances) == 5
    assert "L40S by its PCI id (0x26b9)" in texts["bare.yml"]
    told = [warning.what for warning in made(wanted, answers).warnings]
    assert any("from the bus alone" in what for what in told) and any("nouveau" in what for what in told)


def test_a_machine_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = targets.wanted("lab", ["ops@vm"])
    answer = look("vm")
    answer["hardware"]["user"] = {"name": "ops", "root": False}
    texts, plan = written(tmp_path, monkeypatch, wanted, {"ops@vm": answer})
    assert seats(plan) == [("tiny-chat", "vm", [0]), ("tiny-chat", "vm", [1])]
    assert "model_store_dir" not in texts["lab.yml"], "the role's own folder is as good as another on the one disk"
    assert yaml.safe_load(texts["lab.yml"])["all"]["children"]["lab"]["children"]["serving"]["hosts"]["vm"][
        "ansible_become"
    ]


def test_two_servers_and_a_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = targets.wanted("inria", ["chifflot-1.example.org", "chifflot-2.example.org"], gateway="front")
    answers = {
        "chifflot-1.example.org": look("a100-1"),
        "chifflot-2.example.org": look("a100-2"),
        "front": look("front"),
    }
    texts, plan = written(tmp_path, monkeypatch, wanted, answers)
    assert plan.gateway["hosts"] == plan.telemetry["hosts"] == ["front"]
    assert {one.host for one in plan.instances} == {"chifflot-1", "chifflot-2"} and len(plan.instances) == 9
    assert {one.address for one in plan.instances} == {"203.0.113.1", "203.0.113.2"}
    assert plan.gateway["base_url"] == "http://203.0.113.10:8000/v1"
    assert "devices" not in texts["inria.yml"].partition("gateway:")[2]
    # Drives behind RAID are not NVMe by their name; what lies under /tmp is no place to keep models.
    assert "/home/models" in texts["inria.yml"] and "model_store_dir: /tmp" not in texts["inria.yml"]


def test_ansible_plans_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = targets.wanted("lenovo-sr675", ["root@192.0.2.10"])
    _texts, expected = written(tmp_path, monkeypatch, wanted, {"root@192.0.2.10": look("sr675")})
    outcome = outcome_of(tmp_path, ansible(tmp_path, inventory="lenovo-sr675.yml"))
    assert isinstance(outcome, Plan), outcome
    assert [one["devices"] for one in outcome.as_dict()["instances"]] == [one.devices for one in expected.instances]


EVIL = "{{ lookup('pipe', 'touch owned') }}"


@pytest.mark.parametrize(
    "name",
    [
        'NVIDIA "L40S": 4\'s',
        EVIL,
        "NVIDIA: [x] # y",
        "& *a !b",
        "GPU\nall: {}\n",
        "N\u2028V\x85\x07",
        "- x",
        "null",
        "",
    ],
)
def test_what_a_host_says_stays_a_value(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = look("sr675")
    for gpu in answer["gpu"]["gpus"]:
        gpu["name"] = name
    answer["hardware"]["name"] = name or "x"
    answer["hardware"]["cpu"]["model"] = name
    answer["hardware"]["mounts"][2]["drives"][0]["model"] = name
    answer["hardware"]["mounts"][3]["path"] = f"/srv/{name}"
    answer["hardware"]["interfaces"][0]["name"] = name
    answer["system"]["os"]["name"] = name
    texts, plan = written(
        tmp_path, monkeypatch, targets.wanted("lab", ["root@192.0.2.10"]), {"root@192.0.2.10": answer}
    )
    assert len(plan.instances) == 5
    (server,) = yaml.safe_load(texts["lab.yml"])["all"]["children"]["lab"]["children"]["serving"]["hosts"].values()
    assert set(server) <= {
        "ansible_host", "ansible_user", "site_address", "devices", "model_store_dir", "vllm_model_store_dir",
        "vllm_cache_dir",
    }  # fmt: skip
    templates = [value for value in server.values() if "{{" in str(value)]
    assert templates == ["{{ model_store_dir }}"], "nothing that a host says is a template"
    assert "{" not in server["devices"][0].get("model", "")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("-oProxyCommand=x", "name or address"),
        ("root@-x", "name or address"),
        ("a,b", "name or address"),
        ("a b", "name or address"),
        ("{{ x }}", "name or address"),
        ("host:2222", "names a port"),
        ("-x@host", "name of a user"),
        ("@host", "name of a user"),
        ("", "name or address"),
        ("a\nb", "name or address"),
    ],
)
def test_hosts_that_ssh_would_misread(word: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as told:
        targets.wanted("lab", ["good", word])
    assert told.value.hint


@pytest.mark.parametrize("word", ["gpu_1", "müller", "2001:db8::1", "192.0.2.1", "a.b.example", "DOM\\me@h", "a@b@h"])
def test_hosts_as_ssh_takes_them(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, plan = written(tmp_path, monkeypatch, targets.wanted("lab", [word]), {word: look("vm")})
    (values,) = yaml.safe_load(texts["lab.yml"])["all"]["children"]["lab"]["children"]["serving"]["hosts"].values()
    assert word == "@".join(filter(None, [values.get("ansible_user"), values["ansible_host"]]))
    assert len(plan.instances) == 2


@pytest.mark.parametrize("name", ["all", "serving", "local host", "1a", "../x", "a.b", "", "localhost"])
def test_names_that_no_site_can_have(name: str) -> None:
    with pytest.raises(UsageError):
        targets.wanted(name, ["host"])


def test_settings_come_back_as_they_were_told() -> None:
    wanted = targets.wanted("lab", ["a@b", "c"], gateway="d", telemetry="c")
    told = dict(wanted.environment("x", force=True))
    assert targets.from_settings({n: told.get(v, "") for n, v in targets.SETTINGS.items()}) == wanted


def test_all_hosts_that_could_not_be_looked_at_are_told_at_once() -> None:
    said = {
        "a": ("Data could not be sent to remote host. Host key verification failed.", "host key", "ssh a"),
        "b": ("Missing sudo password", "password", "-K"),
        "c": ('The module interpreter "/usr/bin/python3" was not found.', "python3", "apt-get install python3"),
        "d": ("ssh: Could not resolve hostname d: Name or service not known", "resolved", "HostName"),
        "e": ("e: Permission denied (publickey,password).", "let us in", "ssh-copy-id e"),
        "f": ("Task failed: Incorrect sudo password", "refused the password", "-K"),
        "g": (
            "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@ Host key verification failed.",
            "not the one",
            "",
        ),
        "h": ("ssh: connect to host h port 22: Connection timed out", "reached", "ProxyJump"),
        "i": ("something nobody knows", "something nobody knows", "by hand"),
    }
    found, problems = hosts.found(
        targets.wanted("lab", [*said, "good"]),
        {"good": look("vm"), **{host: {"message": message} for host, (message, _what, _hint) in said.items()}},
    )
    assert [host.name for host in found] == ["good"]
    assert [problem.where for problem in problems] == list(said)
    for problem, (_message, what, hint) in zip(problems, said.values(), strict=True):
        assert what in problem.what and hint in problem.hint and problem.hint


def test_a_machine_under_two_names_is_refused() -> None:
    _found, problems = hosts.found(targets.wanted("lab", ["a", "b"]), {"a": look("vm"), "b": look("vm")})
    assert [(problem.where, "same machine as a" in problem.what) for problem in problems] == [("b", True)]


def test_hosts_with_one_name_get_two() -> None:
    other = look("vm")
    other["hardware"]["machine"] = "other"
    answers = {"a@vm.one": look("vm"), "a@vm.two": other}
    result = made(targets.wanted("vm", ["a@vm.one", "a@vm.two"]), answers)
    assert result.groups["serving"] == ["vm-2", "vm-3"], "the site's own group is named vm"
    # Both say that they are 192.0.2.2.
    assert all("site_address" not in values for values in result.variables().values())
    assert sum("another host" in warning.what for warning in result.warnings) == 2


def test_a_host_without_a_gpu_among_servers_is_left_out_unless_it_has_a_part() -> None:
    answers = {"gpu": look("sr675"), "plain": look("front")}
    result = made(targets.wanted("lab", ["gpu", "plain"]), answers)
    assert result.groups == {"serving": ["gpu"], "gateway": ["gpu"], "telemetry": ["gpu"]}
    assert [warning.where for warning in result.warnings] == ["plain"]
    result = made(targets.wanted("lab", ["plain", "gpu"]), answers)
    assert result.groups == {"serving": ["gpu"], "gateway": ["plain"], "telemetry": ["plain"]}
    assert result.warnings == []


@pytest.mark.parametrize(
    ("memory", "capability", "models"),
    [
        (46068, "8.9", ["qwen2.5-14b-instruct-awq", "qwen2.5-1.5b-instruct"]),
        (40536, "8.0", ["qwen2.5-14b-instruct-awq", "qwen2.5-1.5b-instruct"]),
        (23028, "8.6", ["qwen2.5-14b-instruct-awq"]),
        (32768, "7.0", ["qwen2.5-7b-instruct"]),
        (15360, "7.5", ["qwen2.5-7b-instruct-awq"]),
        (16384, "7.0", ["qwen2.5-1.5b-instruct"]),
        (None, None, ["qwen2.5-1.5b-instruct"]),
    ],
)
def test_models_follow_from_the_gpus(memory: int | None, capability: str | None, models: list[str]) -> None:
    answer = look("sr675")
    answer["gpu"]["pci"] = []
    for gpu in answer["gpu"]["gpus"]:
        gpu.update(memory_total_mib=memory, compute_capability=capability)
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    assert [model["name"] for model in result.models] == models
    assert result.models[0]["replicas"] == 4
    assert {model.get("dtype") for model in result.models} == {"half" if capability and capability < "8" else None}
    version = result.variables()["gpu"].get("images_vllm_version")
    assert version == ("0.19.0" if capability == "7.0" else None), "images of CUDA 13 have no code for Volta"


def test_gpus_that_cannot_be_used_are_left_out_and_told() -> None:
    answer = look("sr675")
    answer["gpu"]["gpus"][3]["usable"] = False
    answer["gpu"]["gpus"][1]["mig"] = "enabled"
    answer["gpu"]["gpus"][2]["memory_total_mib"] = 23028
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    devices = result.variables()["gpu"]["devices"]
    assert [(device["memory_gib"], device["count"]) for device in devices] == [(44.98, 2), (22.48, 1)]
    told = " ".join(warning.what for warning in result.warnings)
    assert "1 of 4 GPUs cannot be used" in told and "MIG is enabled on GPU 1" in told


def test_the_table_of_gpus_agrees_with_what_drivers_say() -> None:
    name, memory, capability = gpus.BY_PCI_ID["0x26b9"]
    (device,) = made(targets.wanted("lab", ["gpu"]), {"gpu": look("sr675")}).variables()["gpu"]["devices"]
    assert (device["model"], device["compute_capability"]) == (name, capability)
    assert 0.97 < memory / 1024 / device["memory_gib"] <= 1.0, "declared more than is there, the plan would refuse it"


def test_models_lie_on_nvme_before_anything_else() -> None:
    answer = look("sr675")
    large = copy.deepcopy(answer["hardware"]["mounts"][2])
    large.update(path="/srv/sata", free_gib=9000.0, total_gib=9000.0)
    large["drives"][0].update(name="sdb", nvme=False)
    answer["hardware"]["mounts"].insert(0, large)
    wanted = targets.wanted("lab", ["gpu"])
    assert made(wanted, {"gpu": answer}).variables()["gpu"]["model_store_dir"] == "/srv/nvme1/models"
    for mount in answer["hardware"]["mounts"]:
        mount["free_gib"] = min(mount["free_gib"], 9000.0 if mount is large else 5.0)
    assert made(wanted, {"gpu": answer}).variables()["gpu"]["model_store_dir"] == "/srv/sata/models"


def test_what_could_not_be_read_is_told() -> None:
    answer = look("sr675")
    answer["hardware"].update(mounts=None, interfaces=None, errors={"mounts": "OSError: no", "interfaces": "x"})
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    assert [warning.what.split(" ")[0] for warning in result.warnings] == ["mounts", "interfaces"]
    assert not {"site_address", "model_store_dir"} & set(result.variables()["gpu"])
    _found, problems = hosts.found(targets.wanted("lab", ["gpu"]), {"gpu": {**answer, "gpu": None, "message": "gone"}})
    assert [problem.where for problem in problems] == ["gpu"], (
        "without its GPUs it would be written down as without any"
    )


def test_the_address_given_wins_where_the_host_has_it() -> None:
    answer = look("sr675")
    result = made(targets.wanted("lab", ["198.51.100.10"]), {"198.51.100.10": answer})
    assert result.variables()["sr675"]["site_address"] == "198.51.100.10"
    translated = made(targets.wanted("lab", ["203.0.113.99"]), {"203.0.113.99": answer})
    assert translated.variables()["sr675"]["site_address"] == "192.0.2.10"


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    texts = {"lab.yml": "new\n", "group_vars/lab/main.yml": "same\n"}
    assert write.compare(tmp_path, texts) == dict.fromkeys(texts, "new")
    write.write(tmp_path, texts)
    assert write.compare(tmp_path, texts) == dict.fromkeys(texts, "same") and not write.changes(tmp_path, texts)
    (tmp_path / "lab.yml").write_text("mine\n")
    states = write.compare(tmp_path, texts)
    assert states == {"lab.yml": "differs", "group_vars/lab/main.yml": "same"}
    told = write.changes(tmp_path, texts)
    assert "-mine\n+new\n" in told
    result = made(targets.wanted("lab", ["vm"]), {"vm": look("vm")})
    answer = report.done(result, tmp_path, texts, states, told, wrote=False, check=False)
    assert answer["status"] == "refused" and [one["where"] for one in answer["problems"]] == [str(tmp_path / "lab.yml")]
    assert "--force" in "\n".join(report.message(answer)) and "-mine" in report.message(answer)
    dry = report.done(result, tmp_path, texts, states, told, wrote=False, check=True)
    assert dry["status"] == "dry" and "new" in report.message(dry)


def test_equal_looks_give_equal_files() -> None:
    wanted, answers = targets.wanted("lab", ["gpu"]), {"gpu": look("sr675")}
    assert text.files(made(wanted, answers), "x") == text.files(made(wanted, copy.deepcopy(answers)), "x")


def test_the_user_may_be_unknown() -> None:
    answer = look("vm")
    answer["hardware"]["user"] = None
    values = made(targets.wanted("lab", ["vm"]), {"vm": answer}).variables()["vm"]
    assert values["ansible_become"] is True


@pytest.mark.parametrize("on_bus", [True, False])
def test_a_driver_that_answers_is_not_said_to_be_missing(on_bus: bool) -> None:
    answer = look("sr675")
    for gpu in answer["gpu"]["gpus"]:
        gpu["usable"] = False
    if not on_bus:
        answer["gpu"]["pci"] = []
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    told = " ".join(warning.what for warning in result.warnings)
    assert "no driver answers" not in told and "none of its 4 GPUs can be used" in told
    assert [device["count"] for device in result.variables()["gpu"]["devices"]] == [4]


def test_a_small_gpu_that_decides_for_all_is_told() -> None:
    answer = look("sr675")
    answer["gpu"]["pci"] = []
    answer["gpu"]["gpus"][3].update(name="NVIDIA T400", memory_total_mib=1843, compute_capability="7.5")
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    assert [model["name"] for model in result.models] == ["qwen2.5-1.5b-instruct"]
    (warning,) = [one for one in result.warnings if "T400" in one.what]
    assert warning.where == "gpu" and "1.79 GiB" in warning.what and "devices" in warning.hint
    assert made(targets.wanted("lab", ["gpu"]), {"gpu": look("sr675")}).warnings == []
