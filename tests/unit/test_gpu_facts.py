"""GPU facts: real and hand-written outputs of nvidia-smi, whole and mangled."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ansible
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/nvidia_smi"
sys.path.insert(0, str(ROOT / "playbooks/module_utils"))

import nvidia_smi  # type: ignore[import-not-found]  # noqa: E402

KEYS = set(nvidia_smi.gpu(0))


def facts(folder: str, tmp_path: Path, path: str = "") -> dict[str, Any]:
    """The module itself, as a process, with a replayed nvidia-smi in front of PATH."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FIXTURES}/replay.py "$@"\n')
    program.chmod(0o755)
    utils = tmp_path / "ansible/module_utils"
    # As Ansible ships it: our module_utils beside its own.
    utils.parent.mkdir()
    utils.symlink_to(Path(ansible.__file__).parent / "module_utils")
    shim = "import sys,ansible.module_utils as m; m.__path__.append(sys.argv.pop(1)); import runpy; "
    shim += "sys.argv=sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            shim,
            str(ROOT / "playbooks/module_utils"),
            str(ROOT / "playbooks/library/gpu_facts.py"),
        ],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"timeout": 5}}),
        env={**os.environ, "PATH": path or f"{tmp_path}:{os.environ['PATH']}", "REPLAY_DIR": str(FIXTURES / folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["ansible_facts"]["gpu"]
    return found


def codes(found: dict[str, Any]) -> set[str]:
    return {problem["code"] for problem in found["problems"]}


def test_four_l40s_with_topology(tmp_path: Path) -> None:
    found = facts("l40s-x4", tmp_path)
    assert found["driver"]["version"] == "580.95.05"
    assert found["driver"]["cuda"] == "13.0"
    assert [g["memory_total_mib"] for g in found["gpus"]] == [46068] * 4
    assert [g["compute_capability"] for g in found["gpus"]] == ["8.9"] * 4
    assert [g["pci"] for g in found["gpus"]] == ["0000:01:00.0", "0000:41:00.0", "0000:81:00.0", "0000:c1:00.0"]
    assert [g["numa_node"] for g in found["gpus"]] == [0, 0, 1, 1]
    assert found["gpus"][2]["cpus"] == "96-191,288-383"
    assert found["gpus"][3]["processes"] == [{"pid": 4003, "name": "VLLM::EngineCore", "type": "C", "memory_mib": 1500}]
    assert {link["kind"] for link in found["links"]} == {"NODE", "SYS"}
    assert len(found["links"]) == 6
    assert all(g["usable"] for g in found["gpus"])
    assert found["problems"] == []


def test_the_number_and_the_capability_come_from_the_query(tmp_path: Path) -> None:
    found = facts("h100-lost", tmp_path)
    assert [(g["index"], g["compute_capability"]) for g in found["gpus"]] == [(i, "9.0") for i in range(1, 8)]
    # The row of a GPU in the matrix is that of its number, not of its place in the XML.
    assert [g["cpus"] for g in found["gpus"]] == ["0-63,128-191"] * 3 + ["64-127,192-255"] * 4
    assert {link["kind"] for link in found["links"]} == {"NV18"}
    assert [(p["code"], p["gpu"]) for p in found["problems"]] == [("gpu_lost", "0000:53:00.0")]


@pytest.mark.parametrize(
    ("folder", "name", "memory", "mig"),
    [
        ("a10g", "NVIDIA A10G", 23028, None),
        ("tesla-t4", "Tesla T4", 15360, None),
        ("rtx-3080-v13", "NVIDIA GeForce RTX 3080", 10240, None),
        ("a100-sxm4-v12", "NVIDIA A100-SXM4-80GB", 81920, "enabled"),
    ],
)
def test_recorded_on_real_machines(tmp_path: Path, folder: str, name: str, memory: int, mig: str | None) -> None:
    found = facts(folder, tmp_path)
    (gpu,) = found["gpus"]
    assert (gpu["name"], gpu["memory_total_mib"], gpu["mig"], gpu["usable"]) == (name, memory, mig, True)
    assert gpu["uuid"].startswith("GPU-")
    assert len(gpu["mig_devices"]) == (4 if mig else 0)
    assert all(part["memory_total_mib"] for part in gpu["mig_devices"])


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("mismatch", "version_mismatch"),
        ("no-driver", "driver_not_loaded"),
        ("lost", "gpu_lost"),
        ("lost-2", "gpu_lost"),
        ("no-devices", "no_gpu"),
        ("blocked", "driver_not_loaded"),
        ("nonsense", "unreadable"),
    ],
)
def test_what_is_wrong_has_a_name_and_a_hint(tmp_path: Path, folder: str, code: str) -> None:
    found = facts(folder, tmp_path)
    assert codes(found) == {code}
    assert all(problem["what"] and problem["hint"] for problem in found["problems"])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that", "no_library"),
        ("nvidia-smi: symbol lookup error: nvidia-smi: undefined symbol: nvmlDeviceGetX", "version_mismatch"),
        ("NVIDIA-SMI has failed because you do not have suffficient permissions.", "no_permission"),
        ("Failed to initialize NVML: Insufficient Permissions", "no_permission"),
        ("Failed to initialize NVML: Function Not Found", "driver_not_loaded"),
    ],
)
def test_words_that_nvidia_smi_has_for_it(said: str, code: str) -> None:
    named = nvidia_smi.failure(said)
    assert named and named["code"] == code


@pytest.mark.parametrize("gpu", ["GPU1: 0000:0A:00.0", "GPU 0000:0A:00.0", "GPU0000:0A:00.0", "gpu 0000:0A:00.0"])
def test_the_lost_gpu_is_named_however_it_is_written(gpu: str) -> None:
    named = nvidia_smi.failure(f"Unable to determine the device handle for {gpu}: Unknown Error")
    assert named and (named["code"], named["gpu"]) == ("gpu_lost", "0000:0a:00.0")


def test_a_corrupt_inforom_is_told_and_the_gpu_is_used(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "tesla-t4", tmp_path / "warned")
    with (tmp_path / "warned/q-x.xml").open("a") as file:
        file.write("WARNING: infoROM is corrupted at gpu 0000:00:1E.0\n")
    found = facts(str(tmp_path / "warned"), tmp_path)
    assert found["gpus"][0]["usable"]
    assert [(p["code"], p["gpu"]) for p in found["problems"]] == [("gpu_ailing", "0000:00:1e.0")]


def test_the_lost_gpu_is_named(tmp_path: Path) -> None:
    assert facts("lost", tmp_path)["problems"][0]["gpu"] == "0000:c1:00.0"


def test_nothing_is_installed(tmp_path: Path) -> None:
    assert codes(facts("lost", tmp_path, path=f"{tmp_path}/nowhere")) == {"no_nvidia_smi"}


def test_csv_when_there_is_no_xml_and_broken_fields_are_problems(tmp_path: Path) -> None:
    found = facts("csv-only", tmp_path)
    assert [g["usable"] for g in found["gpus"]] == [True, False, False]
    assert found["gpus"][0]["compute_capability"] == "7.0"
    assert codes(found) == {"gpu_error", "gpu_lost"}


def test_list_when_there_is_nothing_else(tmp_path: Path) -> None:
    found = facts("list-only", tmp_path)
    assert [g["mig"] for g in found["gpus"]] == ["enabled", None]
    assert len(found["gpus"][0]["mig_devices"]) == 2


def test_a_hanging_driver_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    program = tmp_path / "slow/nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    found = facts("lost", tmp_path, path=f"{tmp_path}/slow:/bin:/usr/bin")
    assert "timeout" in codes(found)


@pytest.mark.parametrize("folder", [f.name for f in sorted(FIXTURES.iterdir()) if f.is_dir()])
def test_mangled_output_never_raises(folder: str) -> None:
    chance = random.Random(folder)
    for file in (FIXTURES / folder).iterdir():
        text = file.read_text(errors="replace")
        lines = text.splitlines(keepends=True)
        mangled = [text[: chance.randrange(len(text) + 1)] for _ in range(30)]
        for _ in range(30):
            kept = [line for line in lines if chance.random() > 0.15]
            word = chance.choice(["N/A", "ERR!", "[Unknown Error]", "", "\x00", "&", "<", "GPU is lost"])
            mangled.append("".join(kept).replace(chance.choice(["MiB", "GPU", "0", ">", ","]), word))
        for broken in mangled:
            whole = nvidia_smi.from_xml(broken)
            gpus = whole["gpus"] if whole else []
            gpus += nvidia_smi.from_csv(broken, ["index", "uuid", "name", "memory.total"])
            gpus += nvidia_smi.from_list(broken)
            nvidia_smi.topology(broken)
            nvidia_smi.failure(broken)
            told = nvidia_smi.judged(gpus)
            assert all(set(g) == KEYS for g in gpus)
            assert all(g["usable"] or g["problems"] for g in gpus)
            unusable = [p for p in told if p["code"] not in ("gpu_ailing", "fabric_not_ready")]
            assert len([g for g in gpus if not g["usable"]]) == len(unusable)


@pytest.mark.parametrize(
    ("folder", "field", "words"),
    [
        ("rtx-3080-v13", "fan_speed", "ERR!"),
        ("rtx-3080-v13", "gpu_recovery_action", "Drain and Reset"),
        ("a10g", "gpu_temp", "Unknown Error"),
        ("a10g", "remapped_row_failure", "Yes"),
    ],
)
def test_a_gpu_that_ails_is_told_and_works_on(folder: str, field: str, words: str) -> None:
    text = (FIXTURES / folder / "q-x.xml").read_text()
    ailing = re.sub(f"<{field}>[^<]*", f"<{field}>{words}", text)
    for shown, problems in ((text, []), (ailing, ["gpu_ailing"])):
        whole = nvidia_smi.from_xml(shown)
        assert whole is not None
        told = nvidia_smi.judged(whole["gpus"])
        assert whole["gpus"][0]["usable"]
        assert [p["code"] for p in told] == problems
        assert all(f"{field} {words}" in p["what"] for p in told)
