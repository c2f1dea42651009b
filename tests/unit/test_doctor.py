"""What was found on hosts in, lines out: each rule met and broken; and what a plan needs of a host."""

from __future__ import annotations

import io
from copy import deepcopy
from typing import Any

import pytest
from rich.console import Console

from deploy_cli.doctor.judge import judge, version
from deploy_cli.doctor.lines import Line, blocking, document, plain, refusal, table
from deploy_cli.doctor.needs import READ, needs

LIMITS: dict[str, Any] = {
    "systems": {"debian": ["12", "13"], "ubuntu": ["22.04"], "rhel": ["9", "10"]},
    "architectures": ["x86_64"], "python_min": "3.9", "memory_gib": 4, "store_free_gib": 50, "cache_free_gib": 5,
    "clock_seconds": 5, "clock_stop_seconds": 120, "docker_cdi_min": "25.0",
    "registry_url": "https://registry.example/v2/", "hub_url": "https://hub.example",
}  # fmt: skip
VALUES: dict[str, Any] = {
    **{f"host_checks_{name}": value for name, value in LIMITS.items()},
    "haproxy_bind_address": "0.0.0.0", "haproxy_port": "8000", "haproxy_stats_port": 8404,
    "images_catalogue": [
        {"name": "vllm-cuda", "reference": "vllm/vllm-openai:v1"},
        {"name": "vllm-cpu", "reference": "vllm/cpu:v1", "build": {"context": "x"}},
        {"name": "haproxy", "reference": "haproxy:3.0", "build": {"context": "x"}},
        {"name": "jaeger", "reference": "jaeger:2", "build": {"context": "x"}},
    ],
    "images_min_free_gib": 15, "images_mode": "auto", "images_overrides": [], "images_registry_prefix": "",
    "jaeger_health_port": 13133, "jaeger_query_port": 16686, "model_store_ca_file": "",
    "model_store_dir": "/srv/models", "model_store_hub_url": "", "model_store_proxy_env": {"https_proxy": "http://proxy"},
    "nvidia_driver_branch": 580, "nvidia_driver_branch_min": 580, "nvidia_driver_manage": True,
    "nvidia_driver_prebuilt": False, "nvidia_driver_repository_manage": True, "nvidia_driver_source": "vendor",
    "nvidia_driver_repository_url": "https://mirror.example", "vllm_cache_dir": "/srv/cache",
    "vllm_gpu_runtime_driver": "cdi", "docker_packages": [], "docker_version": "",
}  # fmt: skip


def plan(kind: str = "nvidia") -> dict[str, Any]:
    def instance(number: int) -> dict[str, Any]:
        return {
            "name": f"chat-{number}", "host": "gpu1", "device_kind": kind, "devices": [number], "device_uuids": [],
            "model": "chat", "port": 8100 + number, "publish_address": "10.0.0.1",
        }  # fmt: skip

    return {
        "site": "prod",
        "models": [{"name": "chat", "kind": "hub", "store_name": "chat-main"}, {"name": "other", "kind": "hub"}],
        "instances": [instance(0), instance(1)],
        "gateway": {"hosts": ["gw"]},
        "telemetry": {"hosts": ["gw"], "otlp_port": 4317},
        "hosts": {
            "gpu1": {"address": "10.0.0.1", "devices": [{"kind": kind, "count": 2}]},
            "gw": {"address": "10.0.0.2", "devices": []},
        },
    }


def of(host: str = "gpu1", kind: str = "nvidia", **values: Any) -> dict[str, Any]:
    return needs(plan(kind), host, {**VALUES, **values})


LOOK: dict[str, Any] = {
    "os": {"id": "debian", "like": [], "version": "13", "name": "Debian 13", "arch": "x86_64"},
    "kernel": {"release": "6.12.1", "headers": True}, "secure_boot": "disabled", "python": "3.13.5", "cgroup": 2,
    "packages": {"kind": "apt", "nvidia": {"nvidia-driver": "580"}, "held": ["nvidia-driver"], "enabled": True,
                 "blacklist": []},
    "docker": {"present": True, "answers": True, "version": "28.2.2", "storage_driver": "overlay2", "cdi": True,
               "cgroup_driver": "systemd", "cgroup_version": "2", "live_restore": True, "images": [], "ways": []},
    "toolkit": "1.20.0", "cdi": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"],
    "gpu_container": {"state": "ok", "uuids": ["GPU-a", "GPU-b"]},
    "folders": [
        {"path": "/srv/models", "device": 1, "free_gib": 900.0}, {"path": "/srv/cache", "device": 1, "free_gib": 900.0},
        {"path": "/var/lib/docker", "device": 2, "free_gib": 90.0, "engine": True},
    ],
    "models": [], "clock": {"ahead_seconds": 0.4, "ntp": True}, "ports": [],
    "urls": [{"url": "https://registry.example/v2/", "ok": True, "why": "401"},
             {"url": "https://hub.example", "ok": True, "why": "200"}],
    "memory": {"total_gib": 755.0, "available_gib": 700.0}, "user": {"name": "root", "root": True}, "errors": {},
}  # fmt: skip
GPU: dict[str, Any] = {
    "driver": {"version": "580.95.05", "cuda": "13.0", "module": "580.95.05", "library": "580.95.05", "open": True},
    "nouveau": False, "nvswitch": False, "links": [], "problems": [],
    "pci": [{"address": "0000:01:00.0"}, {"address": "0000:02:00.0"}],
    "gpus": [{"index": 0, "uuid": "GPU-a", "name": "NVIDIA L40S", "usable": True, "problems": []},
             {"index": 1, "uuid": "GPU-b", "name": "NVIDIA L40S", "usable": True, "problems": []}],
}  # fmt: skip


def changed(found: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A copy with these keys replaced; a dict is laid over the one that stands there."""
    made = deepcopy(found)
    for key, value in parts.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) and isinstance(made[key], dict) else value
    return made


def lines(host: str = "gpu1", gpu: Any = GPU, need: dict[str, Any] | None = None, **parts: Any) -> list[Line]:
    return judge(host, {"look": changed(LOOK, **parts)}, gpu, need or of(host))


def line(found: list[Line], check: str) -> Line:
    return next(entry for entry in found if entry.check == check)


def test_a_gpu_server_that_is_well() -> None:
    found = lines()
    assert {entry.state for entry in found} == {"ok"}
    assert line(found, "driver").what == "580.95.05, CUDA 13.0, open modules"
    assert line(found, "gpus").what == "2 usable: NVIDIA L40S"
    assert document("prod", found)["ok"]


BARE: dict[str, Any] = {
    "docker": {"present": False, "answers": False}, "toolkit": "", "cdi": [], "packages": {"nvidia": {}, "held": []},
    "gpu_container": {"state": "skipped", "why": "none of the images is here yet"},
    "kernel": {"headers": False},
}  # fmt: skip
NO_DRIVER = changed(
    GPU, gpus=[], driver=dict.fromkeys(GPU["driver"]),
    problems=[{"code": "no_nvidia_smi", "what": "nvidia-smi is not there", "hint": "", "gpu": None}],
)  # fmt: skip


def test_a_bare_host_is_no_problem() -> None:
    found = lines(gpu=NO_DRIVER, **BARE)
    assert not [entry for entry in found if entry.state == "problem"]
    for check in ("docker", "driver", "toolkit", "kernel", "cdi", "gpus"):
        assert line(found, check).state == "hint", check
    assert "`deployctl up`" in line(found, "docker").hint
    assert line(found, "gpu container").state == "skipped"
    assert not [entry for entry in found if entry.blocks]
    gateway = lines("gw", None, of("gw"), memory={"available_gib": 1.0})
    assert line(gateway, "memory").state == "ok", "no engine runs there"


@pytest.mark.parametrize(
    ("parts", "check", "state", "blocks", "words"),
    [
        ({"os": {"version": "11", "name": "Debian 11"}}, "system", "problem", True, "Debian 11 is not supported"),
        ({"os": {"version": "13.1"}}, "system", "problem", True, "supported are debian 12, 13"),
        ({"os": {"id": "arch", "name": "", "version": ""}}, "system", "problem", True, "arch"),
        ({"os": {"id": "rocky", "like": ["rhel"], "version": "9.4", "name": "Rocky"}}, "system", "ok", False, "Rocky"),
        ({"os": {"id": "rhel", "version": "8.9", "name": "RHEL 8"}}, "system", "problem", True, "RHEL 8"),
        ({"os": {"arch": "riscv64"}}, "architecture", "problem", True, "riscv64"),
        ({"kernel": {"headers": False}}, "kernel", "hint", False, "no headers"),
        ({"user": {"name": "me", "root": False}}, "user", "problem", True, "not root"),
        ({"python": "3.8.10"}, "python", "problem", False, "3.9"),
        ({"memory": {"available_gib": 1.5}}, "memory", "hint", False, "1.5 GiB"),
        ({"memory": {"available_gib": None}}, "memory", "hint", False, "not known"),
        ({"clock": {"ahead_seconds": -4.9}}, "clock", "ok", False, "in step"),
        ({"clock": {"ahead_seconds": -7.0}}, "clock", "problem", False, "7.0 s behind"),
        ({"clock": {"ahead_seconds": 300.0}}, "clock", "problem", True, "300.0 s ahead"),
        ({"clock": {"ntp": False}}, "clock", "hint", False, "not synchronised"),
        ({"clock": {"ahead_seconds": None}}, "clock", "skipped", False, "not compared"),
        ({"docker": {"answers": False, "why": "refused"}}, "docker", "problem", False, "refused"),
        ({"docker": {"live_restore": False}}, "docker", "hint", False, "no live-restore"),
        ({"docker": {"version": "20.10.24+dfsg1"}}, "docker", "problem", True, "too old for CDI"),
        ({"packages": {"held": [], "enabled": True}}, "holds", "problem", False, "update by themselves"),
        ({"packages": {"held": [], "enabled": True, "blacklist": ["nvidia-", "("]}},
         "holds", "hint", False, "not held"),
        ({"packages": {"held": [], "enabled": False}}, "holds", "hint", False, "1 of 1"),
        ({"packages": {"nvidia": {}}}, "holds", "skipped", False, "no driver package"),
        ({"packages": {"held": ["nvidia-*"]}}, "holds", "ok", False, "held"),
        ({"cdi": ["nvidia.com/gpu=0"]}, "cdi", "problem", False, "not among the CDI devices: 1"),
        ({"gpu_container": {"state": "failed", "why": "no such device"}}, "gpu container", "problem", False, "no such"),
        ({"gpu_container": {"uuids": ["GPU-a"]}}, "gpu container", "problem", False, "GPU-b"),
        ({"secure_boot": "enabled"}, "secure boot", "hint", False, "took the loaded driver"),
        ({"urls": [{"url": "https://hub.example", "ok": False, "why": "timed out"}]},
         "hub", "problem", True, "timed out"),
        ({"urls": [{"url": "https://registry.example/v2/", "ok": False, "why": "no DNS"}]},
         "registry", "problem", True, "no DNS"),
        ({"urls": [{"url": "https://registry.example/v2/", "ok": False, "why": "no DNS"}],
          "docker": {"ways": ["https://mirror"]}}, "registry", "hint", False, "https://mirror"),
        ({"urls": [{"url": "https://registry.example/v2/", "ok": False, "why": "no DNS"}],
          "docker": {"images": ["vllm/vllm-openai:v1"]}}, "registry", "hint", False, "nothing is missing"),
        ({"urls": []}, "registry", "skipped", False, "not asked"),
        ({"errors": {"gpu_container": "no answer within 9 s"}}, "gpu container", "ok", False, "2 GPUs"),
    ],
)  # fmt: skip
def test_each_rule(parts: dict[str, Any], check: str, state: str, blocks: bool, words: str) -> None:
    found = line(lines(**parts), check)
    assert (found.state, found.blocks) == (state, blocks)
    assert words in found.what + found.hint
    assert state in ("ok", "skipped") or found.hint or "mirror" in found.what, "a finding says what to do"


@pytest.mark.parametrize(
    ("wanted", "there", "state", "blocks", "words"),
    [
        ("28.2", "28.2.2", "ok", False, "live-restore"),
        ("5:28.2.2-1~debian.13~trixie", "28.2.2", "ok", False, "live-restore"),
        ("26.1.5+dfsg1-9+b4", "26.1.5+dfsg1", "ok", False, "live-restore"),
        ("28.20", "28.2.2", "hint", False, "wanted is 28.20"),
        ("28.2.2", "28.2.20", "hint", False, "wanted is 28.2.2"),
        # `up` brings the newer one before it needs it, and would not bring an older one.
        ("25", "20.10.24+dfsg1", "hint", False, "wanted is 25"),
        ("24", "28.2.2", "problem", True, "too old for CDI"),
        ("20.10", "20.10.24+dfsg1", "problem", True, "too old for CDI"),
    ],
)
def test_another_engine_is_wanted(wanted: str, there: str, state: str, blocks: bool, words: str) -> None:
    found = line(lines(need=of(docker_version=wanted), docker={"version": there}), "docker")
    assert (found.state, found.blocks) == (state, blocks)
    assert words in found.what


def problem(code: str, gpu: str | None = None) -> dict[str, Any]:
    return {"code": code, "what": f"{code} seen", "hint": "do this", "gpu": gpu}


@pytest.mark.parametrize(
    ("found", "check", "state", "blocks"),
    [
        (problem("driver_not_loaded"), "driver", "problem", False),
        (problem("no_permission"), "driver", "problem", True),
        (problem("timeout"), "driver", "problem", True),
        (problem("unreadable"), "driver", "problem", False),
        (problem("nouveau_loaded"), "driver", "hint", False),
        (problem("gpu_lost", "0000:01:00.0"), "gpu", "problem", True),
        (problem("gpu_error", "GPU-a"), "gpu", "problem", True),
        (problem("no_gpu"), "gpu", "problem", True),
        (problem("gpu_elsewhere", "0000:03:00.0"), "gpu", "hint", False),
        (problem("gpu_unified", "GPU-c"), "gpu", "hint", False),
    ],
)
def test_each_problem_of_the_gpu_facts(found: dict[str, Any], check: str, state: str, blocks: bool) -> None:
    listed = lines(gpu=changed(GPU, problems=[found]))
    told = line(listed, check)
    assert (told.state, told.blocks, told.hint) == (state, blocks, "do this")
    assert [entry.check for entry in listed if entry.hint == "do this"] == [check], "it is told once"


def test_a_library_that_is_not_the_modules_is_seen_without_a_word_of_nvidia_smi() -> None:
    found = lines(gpu=changed(GPU, driver={"library": "580.105.08"}))
    told = [entry for entry in found if entry.check == "driver" and entry.state == "problem"]
    assert [entry.blocks for entry in told] == [False] and "reboots this host" in told[0].hint
    assert [entry.what for entry in told] == ["module 580.95.05, library 580.105.08: no new container will start"]


def test_a_mismatch_that_nvidia_smi_names_is_told_once() -> None:
    found = lines(gpu=changed(GPU, driver={"library": "580.105.08"}, problems=[problem("version_mismatch")]))
    assert [entry.what for entry in found if entry.check == "driver"] == ["version_mismatch seen"]


def test_a_planned_gpu_that_is_not_there_blocks() -> None:
    told = [entry for entry in lines(gpu=changed(GPU, gpus=GPU["gpus"][:1])) if entry.state == "problem"]
    assert [(entry.check, entry.what, entry.blocks) for entry in told] == [("gpus", "planned and not there: 1", True)]


def test_secure_boot_without_a_loaded_driver_blocks() -> None:
    told = line(lines(gpu=NO_DRIVER, **BARE, secure_boot="enabled"), "secure boot")
    assert (told.state, told.blocks) == ("problem", True)
    need = of("gw", kind="cpu")
    assert line(lines("gw", None, need, secure_boot="enabled"), "secure boot").state == "ok"


def test_gpus_that_could_not_be_looked_at() -> None:
    assert line(lines(gpu=None), "gpu").state == "problem"


@pytest.mark.parametrize(
    ("port", "address", "holder", "told"),
    [
        (8100, "0.0.0.0", {"process": "nginx", "pid": 7}, "held by nginx (process 7), and planned for: chat-0"),
        (8100, "::", {"process": "docker-proxy", "container": "web"}, "held by container web, "),
        (8101, "10.0.0.1", {"container": "vllm-chat-1", "site": "test"}, "container vllm-chat-1 of site test"),
        (8101, "10.0.0.1", {"container": "vllm-chat-1", "site": "prod"}, ""),
        (8101, "127.0.0.1", {"process": "nginx", "pid": 7}, ""),
        (9000, "0.0.0.0", {"process": "nginx", "pid": 7}, ""),
        (8100, "10.0.0.1", {}, "a process that this user may not see"),
    ],
)
def test_ports(port: int, address: str, holder: dict[str, Any], told: str) -> None:
    entry = {"port": port, "address": address, "pid": None, "process": "", "container": "", "site": "", **holder}
    found = [entry for entry in lines(ports=[entry]) if entry.check.startswith("port ")]
    assert [(entry.state, entry.blocks) for entry in found] == ([("problem", True)] if told else [])
    assert told in "".join(entry.what for entry in found)


def test_room_is_added_up_on_a_shared_disk_and_what_lies_there_needs_none() -> None:
    folders = [{**entry, "device": 1, "free_gib": 60.0} for entry in LOOK["folders"]]
    told = line(lines(folders=folders), "disk")
    assert (told.state, told.blocks) == ("problem", True)
    assert "70 wanted (15 for images + 50 for models + 5 for vLLM's cache)" in told.what
    assert line(lines(folders=folders, models=["chat"]), "disk").state == "ok"
    assert line(lines(folders=folders, docker={"images": ["vllm/vllm-openai:v1"]}), "disk").state == "ok"


@pytest.mark.parametrize(
    ("answer", "check", "words"),
    [
        ({"unreachable": True, "msg": "Task failed: timed out"}, "connection", "unreachable: timed out"),
        ({"failed": False, "msg": "Missing sudo password"}, "sudo", "Missing sudo password"),
        ({"msg": "/usr/bin/python3: not found"}, "connection", "not found"),
        ({}, "connection", "no answer"),
    ],
)
def test_a_host_that_cannot_be_looked_at_is_one_line(answer: dict[str, Any], check: str, words: str) -> None:
    found = judge("gpu1", answer, None, of())
    assert [(entry.check, entry.state, entry.blocks) for entry in found] == [(check, "problem", True)]
    assert words in found[0].what and found[0].hint


def test_probes_that_broke_leave_lines_not_errors() -> None:
    nothing = {**dict.fromkeys(LOOK), "errors": {name: "broken" for name in LOOK if name != "errors"}}
    found = judge("gpu1", {"look": nothing}, GPU, of())
    assert not [entry for entry in found if "None" in entry.what]
    assert {entry.check for entry in found if "could not be looked at" in entry.what} >= {"docker", "ports", "folders"}


def test_a_host_without_any_gpu_is_not_a_bare_one() -> None:
    told = line(lines(gpu=changed(NO_DRIVER, pci=[]), **BARE), "gpus")
    assert (told.state, told.blocks) == ("problem", True)


def test_disks_are_told_apart() -> None:
    folders = [{**entry, "device": at, "free_gib": 16.0 + at} for at, entry in enumerate(LOOK["folders"])]
    told = [(entry.state, entry.what.partition(",")[0]) for entry in lines(folders=folders) if entry.check == "disk"]
    assert told == [
        ("ok", "18 GiB free for /var/lib/docker"),
        ("problem", "16 GiB free for /srv/models"),
        ("ok", "17 GiB free for /srv/cache"),
    ]


def test_models_made_on_the_spot_need_no_room() -> None:
    made = plan()
    made["models"][0]["kind"] = "synthetic"
    folders = [{**entry, "device": 1, "free_gib": 25.0} for entry in LOOK["folders"]]
    found = judge("gpu1", {"look": changed(LOOK, folders=folders)}, GPU, needs(made, "gpu1", VALUES))
    assert line(found, "disk").state == "ok"


def test_with_a_bundle_nothing_has_to_be_in_reach() -> None:
    found = needs(plan("nvidia"), "gpu1", VALUES, bundled=True)
    assert not any(found[name] for name in ("pulled", "hub", "registry_url", "hub_url", "urls")) and found["images"]


def test_what_a_host_needs() -> None:
    serving, gateway = of(), of("gw")
    assert (serving["nvidia"], serving["devices"]) == (True, ["0", "1"])
    assert (serving["images"], serving["pulled"]) == (["vllm/vllm-openai:v1"], ["vllm/vllm-openai:v1"])
    assert serving["models"] == {"chat": "/srv/models/chat-main"} and serving["hub"] == ["chat"]
    assert serving["urls"][1] == {
        "url": "https://hub.example", "env": {"https_proxy": "http://proxy"}, "ca_file": "",
    }  # fmt: skip
    assert (serving["gpu_images"], gateway["gpu_images"]) == (["vllm/vllm-openai:v1"], [])
    assert [entry["port"] for entry in serving["ports"]] == [8100, 8101]
    assert serving["limits"] == LIMITS
    assert (gateway["nvidia"], gateway["images"], gateway["pulled"]) == (False, ["haproxy:3.0", "jaeger:2"], [])
    assert [entry["port"] for entry in gateway["ports"]] == [8000, 8404, 16686, 13133, 4317]
    assert gateway["models"] == {} and gateway["urls"] == []
    mirror = of("gw", images_mode="pull", images_registry_prefix="mirror.example:5000/stack/")
    assert mirror["pulled"] == ["mirror.example:5000/stack/haproxy:3.0", "mirror.example:5000/stack/jaeger:2"]
    assert mirror["registry_url"] == "https://mirror.example:5000/v2/"
    override = of("gw", images_overrides=[{"name": "jaeger", "mode": "pull"}])
    assert override["pulled"] == ["jaeger:2"] and override["registry_url"] == LIMITS["registry_url"]
    assert of(model_store_hub_url="https://own.example")["hub_url"] == "https://own.example"
    assert set(READ) <= set(VALUES)


def test_versions_are_compared_as_numbers() -> None:
    assert version("28.2.2") > version("25.0") > version("9.4") > version("") == ()


ANSWER = document("prod", [
    Line("a", "disk", "problem", "1 GiB free", "free space", True), Line("a", "clock", "hint", "unknown", "look"),
    Line("b", "system", "ok", "Debian 13"),
])  # fmt: skip


def test_the_answer_as_lines_and_as_tables() -> None:
    assert not ANSWER["ok"] and ANSWER["hosts"] == {"a": "problem", "b": "ok"}
    assert plain(ANSWER) == [
        "a: 1 problem, 1 hint",
        "  problem disk   1 GiB free",
        "                 hint: free space",
        "  hint    clock  unknown",
        "                 hint: look",
        "",
        "b: all is well",
        "  ok      system  Debian 13",
    ]
    stream = io.StringIO()
    Console(file=stream, width=100).print(table("a", ANSWER["lines"][:2]))
    for word in ("a: 1 problem, 1 hint", "1 GiB free", "hint: free space", "clock"):
        assert word in stream.getvalue()
    assert not document("prod", [])["ok"], "nothing asked is not well"


def test_all_that_blocks_is_told_at_once() -> None:
    found = [Line("a", "disk", "problem", "full", "clean", True), Line("b", "os", "problem", "old", "", True),
             Line("b", "holds", "problem", "loose", "hold")]  # fmt: skip
    text = refusal(blocking(found))
    assert text.startswith("2 problems on the hosts; nothing was touched:")
    assert "a, disk: full\n  Hint: clean" in text and "b, os: old" in text and "loose" not in text
