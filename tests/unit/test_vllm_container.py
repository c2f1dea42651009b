"""Which CPUs an instance without a GPU gets, and what starts before it."""

from __future__ import annotations

from typing import Any

import pytest
from loading import loaded


@pytest.fixture(scope="module")
def role() -> Any:
    return loaded("roles/vllm/filter_plugins/vllm_container.py")


@pytest.mark.parametrize(
    ("devices", "cpus", "places", "share"),
    [
        ([0], [0, 1], 4, "0"),
        ([1], [0, 1], 4, "1"),
        ([2], [0, 1], 4, "0"),
        ([0], list(range(16)), 4, "0,1,2,3"),
        ([3], list(range(16)), 4, "12,13,14,15"),
        ([0, 1], list(range(8)), 4, "0,1,2,3"),
        ([1], [2, 3, 8, 9, 10], 2, "8,9,10"),  # numbers with a gap; the odd one goes to somebody
        ([0], [0], 4, ""),
        ([0], [], 4, ""),  # not known
        ([0], [0, 1], 1, ""),
        ([0], [0, 1], 0, ""),
    ],
)
def test_each_gets_its_part_of_the_cores(
    role: Any, devices: list[int], cpus: list[int], places: int, share: str
) -> None:
    assert role.cpu_share({"devices": devices}, {"cpus": cpus, "cpu_places": places}) == share


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(" 0-3,8\n", [0, 1, 2, 3, 8]), ("5", [5]), ("", []), ("taskset: not found", []), ("0-1,x", [0, 1])],
)
def test_linux_lists_are_read(role: Any, text: str, numbers: list[int]) -> None:
    assert role.cpu_list(text) == numbers


def test_what_starts_before_on_any_of_its_devices_is_waited_for(role: Any) -> None:
    specs = [{"name": "a-0", "devices": ["0"]}, {"name": "a-1", "devices": ["1"]}, {"name": "c", "devices": ["2"]},
             {"name": "b", "devices": ["0", "1"]}, {"name": "d", "devices": ["1"]}]  # fmt: skip
    assert [one["name"] for one in role.vllm_before(specs, specs[3])] == ["a-0", "a-1"]
    assert role.vllm_before(specs, specs[0]) == []
