"""What nvidia-smi prints, read into data: the matrix of links with its empty cells, odd numbers, shared memory."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded

nvidia_smi = loaded("playbooks/module_utils/nvidia_smi.py")

THREE = "CPU Affinity\tNUMA Affinity\tGPU NUMA ID"
TWO = "CPU Affinity\tNUMA Affinity"


def topology(header: str, *rows: str) -> dict[str, Any]:
    found: dict[str, Any] = nvidia_smi.topology("\n".join([f"\t{header}", *rows, "", "Legend:", ""]))
    return found


@pytest.mark.parametrize(
    ("header", "after", "cpus", "numa"),
    [
        # As drivers print them: a number of a NUMA node is followed by a blank cell, `N/A` is led by one.
        (THREE, "28-55,84-111\t1\t\tN/A", "28-55,84-111", 1),
        (THREE, "0-7\t\tN/A\t\tN/A", "0-7", None),
        (TWO, "0-23,48-71\t0", "0-23,48-71", 0),
        (TWO, "0-31\t\tN/A", "0-31", None),
        (TWO, "0-31\t\t1", "0-31", 1),
        ("CPU Affinity", "0-63", "0-63", None),
        ("CPU Affinity\t\tNUMA Affinity\t\tGPU NUMA ID", "0-7\t\t0\t\tN/A", "0-7", 0),
        (THREE, "0-7\t\t0\t\tN/A", "0-7", 0),
        (THREE, "0-31\t0\tN/A", "0-31", 0),
        # The CPUs are none of this job's; the memory is the GPU's own node; both.
        (THREE, "\t1\t\tN/A", None, 1),
        (THREE, "0-71\t\t\t1", "0-71", None),
        (THREE, "0-71\t\t1", "0-71", None),
        (THREE, "\t\t\tN/A", None, None),
        (THREE, "0-71\t0,2-17\t\tN/A", "0-71", None),
        # Nothing says which column these belong to.
        (THREE, "0-71\t0", None, None),
        (THREE, "0-71\t\t0\tN/A", None, None),
        (THREE, "0-71\t0\t\tN/A\t1", None, None),
        (THREE, "", None, None),
    ],
)
def test_affinity_is_told_by_its_place(header: str, after: str, cpus: str | None, numa: int | None) -> None:
    found = topology(f"GPU0\tNIC0\t{header}", f"GPU0\t X \tPHB\t{after}", "NIC0\tPHB\t X \t\t\t\t")
    assert found["cpus"].get(0) == cpus
    assert found["numa"].get(0) == numa


def test_gpus_whose_cpus_this_job_may_not_use() -> None:
    rows = [
        "GPU0\t X \tNV4\tNODE\t0\t0\t\tN/A",
        "GPU2\tNV4\t X \tNODE\t\t1\t\tN/A",
    ]
    found = topology(f"GPU0\tGPU2\tNIC0\t{THREE}", *rows)
    assert found == {"links": {(0, 2): "NV4", (2, 0): "NV4"}, "cpus": {0: "0"}, "numa": {0: 0, 2: 1}}


def test_an_empty_cell_of_the_matrix_moves_no_other() -> None:
    found = topology(f"GPU0\tGPU1\tGPU2\t{THREE}", "GPU0\t X \t\tSYS\t0-7\t0\t\tN/A")
    assert found == {"links": {(0, 2): "SYS"}, "cpus": {}, "numa": {}}
    # Either a link is missing, or the CPUs are: the 1 is no CPU.
    found = topology(f"GPU0\tGPU1\t{THREE}", "GPU0\t X \t\t1\t\tN/A")
    assert found == {"links": {}, "cpus": {}, "numa": {}}


@pytest.mark.parametrize(
    "row",
    [
        "GPU1\tNV4\t0-7\t0\t\tN/A",  # its own cell is missing
        "GPU1\t X \tNV4\t0-7\t0\t\tN/A",  # its own cell is elsewhere
        "GPU1\t\tNV4\t X \t0-7\t0\t\tN/A",
        "GPU1\tNV4",
        "GPU0\t X \t0-7\t0\t\tN/A",  # the other's cell is missing
        "GPU7\tNV4\t X \t0-7\t0\t\tN/A",  # not among the columns
        "GPU" + "9" * 5000 + "\tNV4\t X \t0-7\t0\t\tN/A",
    ],
)
def test_a_row_that_does_not_fit_its_header_tells_nothing(row: str) -> None:
    found = topology(f"GPU0\tGPU1\t{THREE}", row)
    assert found == {"links": {}, "cpus": {}, "numa": {}}


@pytest.mark.parametrize("start", ["\t\x1b[4m", "\x1b[4m\t", "", "    \t"])
def test_the_header_with_and_without_its_underline(start: str) -> None:
    text = f"{start}GPU0\tGPU1\t{THREE}\x1b[0m\r\nGPU0\t X \tPIX\t0-23,48-71\t0\t\tN/A\r\n"
    found = nvidia_smi.topology(text)
    assert found == {"links": {(0, 1): "PIX"}, "cpus": {0: "0-23,48-71"}, "numa": {0: 0}}


def test_blanks_instead_of_tabs_count_only_where_no_cell_is_empty() -> None:
    header = "        GPU0    GPU1    CPU Affinity    NUMA Affinity   GPU NUMA ID"
    whole = "GPU0     X      NODE    0-31    0               N/A"
    found = nvidia_smi.topology(f"{header}\n{whole}\n")
    assert found == {"links": {(0, 1): "NODE"}, "cpus": {0: "0-31"}, "numa": {0: 0}}
    found = nvidia_smi.topology(f"{header}\nGPU0     X      NODE            1               N/A\n")
    assert (found["cpus"], found["numa"]) == ({}, {})


HUGE = "9" * 5000


@pytest.mark.parametrize("number", ["²", "٣", HUGE, "1²"])
def test_numbers_that_are_none_are_left_out(number: str) -> None:
    assert nvidia_smi.from_csv(f"{number}, Tesla T4", ["index", "name"]) == []
    assert nvidia_smi.from_list(f"GPU {number}: Tesla T4 (UUID: GPU-a)\n") == []
    processes = f"<processes><process_info><pid>{number}</pid></process_info></processes>"
    whole = nvidia_smi.from_xml(f"<nvidia_smi_log><gpu>{processes}</gpu></nvidia_smi_log>")
    assert whole["gpus"][0]["processes"] == []
    nvidia_smi.topology(f"\tGPU0\t{THREE}\nGPU0\t X \t0-7\t{number}\t\tN/A\n")


@pytest.mark.parametrize("amount", [HUGE, f"{HUGE} MiB", "9" * 400, "1.2.3 MiB", "²"])
def test_an_amount_of_memory_that_is_none(amount: str) -> None:
    assert nvidia_smi.mib(amount) is None


def of_xml(memory: str, more: str = "") -> dict[str, Any]:
    """One GPU by its -q -x, and what is wrong with it."""
    fields = f"<product_name>NVIDIA GB10</product_name><uuid>GPU-a</uuid>{more}"
    fields += f"<fb_memory_usage><total>{memory}</total></fb_memory_usage>"
    whole = nvidia_smi.from_xml(f'<nvidia_smi_log><gpu id="0000000F:01:00.0">{fields}</gpu></nvidia_smi_log>')
    (gpu,) = whole["gpus"]
    return {"told": nvidia_smi.judged([gpu]), "gpu": gpu}


def of_csv(memory: str) -> dict[str, Any]:
    """The same by its line of CSV."""
    (gpu,) = nvidia_smi.from_csv(f"0, GPU-a, NVIDIA GB10, {memory}", ["index", "uuid", "name", "memory.total"])
    return {"told": nvidia_smi.judged([gpu]), "gpu": gpu}


def test_no_memory_at_all_is_not_usable() -> None:
    for found in (of_xml("0 MiB"), of_csv("0 MiB")):
        assert not found["gpu"]["usable"]
        assert [p["code"] for p in found["told"]] == ["gpu_error"]


@pytest.mark.parametrize("word", ["N/A", "Not Supported", "[N/A]", "[Not Supported]"])
def test_memory_that_belongs_to_the_machine_is_no_fault_of_the_gpu(word: str) -> None:
    for found in (of_xml(word), of_csv(word)):
        (told,) = found["told"]
        assert told["code"] == "gpu_unified"
        assert "no memory of its own" in told["what"] and "dmesg" not in told["what"] + told["hint"]
        # How much of the machine's memory an engine may take is not known here: nothing is planned on it.
        assert not found["gpu"]["usable"] and found["gpu"]["problems"] == ["gpu_unified"]


@pytest.mark.parametrize("word", ["Unknown Error", "ERR!", "[Insufficient Permissions]", ""])
def test_memory_that_fails_stays_a_fault(word: str) -> None:
    for found in (of_xml(word), of_csv(word)):
        assert [p["code"] for p in found["told"]] == ["gpu_error"]
        assert not found["gpu"]["usable"]


def test_the_parts_of_a_gpu_have_the_memory() -> None:
    part = "<mig_devices><mig_device><index>0</index><uuid>MIG-a</uuid></mig_device></mig_devices>"
    found = of_xml("N/A", part)
    assert found["gpu"]["usable"] and found["told"] == []


@pytest.mark.parametrize(
    ("more", "code", "usable"),
    [
        ("<gpu_recovery_action>Reset</gpu_recovery_action>", "gpu_needs_reset", False),
        ("<gpu_recovery_action>Drain P2P</gpu_recovery_action>", "gpu_ailing", True),
        ("<temperature><gpu_temp>GPU requires reset</gpu_temp></temperature>", "gpu_needs_reset", False),
        ("<sm_clock>GPU is lost</sm_clock><max_clocks><sm_clock>1980 MHz</sm_clock></max_clocks>", "gpu_lost", False),
        ("<power_draw>Unknown Error</power_draw><module><power_draw>N/A</power_draw></module>", "gpu_ailing", True),
        ("<pending_blacklist>Yes</pending_blacklist>", "gpu_ailing", True),
        ("<fabric><state>In Progress</state><status>N/A</status></fabric>", "fabric_not_ready", True),
        ("<fabric><state>Completed</state><status>Insufficient Resources</status></fabric>", "gpu_ailing", True),
        ("<fabric><health><summary>Unhealthy</summary></health></fabric>", "gpu_ailing", True),
        ("<fabric><state>Completed</state><status>Success</status></fabric>", None, True),
        ("<fabric><state>N/A</state><status>N/A</status></fabric>", None, True),
    ],
)
def test_what_else_a_gpu_says_of_itself(more: str, code: str | None, usable: bool) -> None:
    found = of_xml("81559 MiB", more)
    assert [p["code"] for p in found["told"]] == ([code] if code else [])
    assert all(p["hint"] for p in found["told"])
    assert found["gpu"]["usable"] is usable


def test_memory_that_waits_for_a_reset() -> None:
    for found in (of_xml("GPU requires reset"), of_csv("[GPU requires reset]")):
        assert [p["code"] for p in found["told"]] == ["gpu_needs_reset"]
        assert not found["gpu"]["usable"]


def test_a_cuda_version_that_is_none() -> None:
    text = "<nvidia_smi_log><cuda_version>Not Found</cuda_version></nvidia_smi_log>"
    assert nvidia_smi.from_xml(text)["cuda"] is None


def test_a_jetson_is_listed() -> None:
    (gpu,) = nvidia_smi.from_list("GPU 0: Orin (nvgpu) (UUID: a9485f58-0a6e-5a97-b73d-87cdf435c65e)")
    assert gpu["uuid"].startswith("a9485f58")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("580.95.05", "580.95.05"),
        ("610.57.04 [Deprecated; will be removed in CUDA 14.0. Use KMD Version instead]", "610.57.04"),
        ("13.3 [Deprecated; will be removed in CUDA 14.0.\n Use CUDA UMD Version instead]", "13.3"),
        ("N/A", None),
        ("ERR!", None),
        ("Not Found", None),
        ("Mixed 580.95.05", "Mixed 580.95.05"),
    ],
)
def test_a_version_is_its_number_whatever_stands_behind_it(said: str, version: str | None) -> None:
    tags = f"<driver_version>{said}</driver_version><cuda_version>{said}</cuda_version>"
    whole = nvidia_smi.from_xml(f"<nvidia_smi_log>{tags}</nvidia_smi_log>")
    assert (whole["driver"], whole["cuda"]) == (version, version)
