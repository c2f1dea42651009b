"""Sites of several hosts and of unlike GPUs, as init writes them."""

from __future__ import annotations

from test_init import look, made

from deploy_cli.init import targets


def test_this_machine_as_the_gateway_of_others_gets_an_address() -> None:
    answers = {"root@sr675": look("sr675"), "localhost": look("front")}
    values = made(targets.wanted("lab", ["root@sr675"], gateway="localhost"), answers).variables()
    assert values["localhost"]["site_address"] == "203.0.113.10"
    alone = made(targets.wanted("lab", ["localhost"]), {"localhost": look("vm")}).variables()
    assert "site_address" not in alone["localhost"]


def test_a_gpu_that_is_too_old_is_left_out_beside_others() -> None:
    answer = look("sr675")
    old = {**answer["gpu"]["gpus"][3], "name": "Quadro P400", "compute_capability": "6.1", "pci": "0000:ff:00.0"}
    answer["gpu"]["gpus"][3].update(old)
    result = made(targets.wanted("lab", ["gpu"]), {"gpu": answer})
    assert [device["count"] for device in result.variables()["gpu"]["devices"]] == [3]
    assert "Quadro P400 left out" in " ".join(warning.what for warning in result.warnings)
    assert "lower number" not in " ".join(warning.what for warning in result.warnings)
