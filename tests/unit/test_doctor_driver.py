"""What the doctor says of a driver: what `up` repairs does not keep it away, unless the driver is the user's own."""

from __future__ import annotations

from pathlib import Path

import yaml
from test_doctor import BARE, GPU, NO_DRIVER, changed, line, lines, of, problem

from deploy_cli.doctor import gpu

NO_ANSWER = changed(
    GPU, gpus=[], driver={"version": None, "library": "580.105.08"}, problems=[problem("version_mismatch")]
)


def test_what_up_repairs_does_not_keep_it_away() -> None:
    mine = of(nvidia_driver_manage=False)
    told = [entry for entry in lines(gpu=NO_ANSWER) if entry.state == "problem"]
    assert [(entry.check, entry.blocks) for entry in told] == [("driver", False)] and "--no-reboot" in told[0].hint
    told = [entry for entry in lines(gpu=NO_ANSWER, need=mine) if entry.state == "problem"]
    assert [(entry.check, entry.blocks, entry.hint) for entry in told] == [("driver", True, "do this")]
    old = changed(GPU, driver=dict.fromkeys(("version", "module", "library"), "550.163.01"))
    for need, blocks, hint in (
        (of(), False, "`deployctl up` installs branch 580"),
        (mine, True, "install a newer driver"),
        (of(nvidia_driver_branch=570), True, "install a newer driver"),
    ):
        told = [entry for entry in lines(gpu=old, need=need) if entry.state == "problem"]
        assert [(entry.what.split(",")[0], entry.blocks, entry.hint) for entry in told] == [
            ("branch 550 is too old for the CUDA of the images", blocks, hint)
        ]
    assert not [entry for entry in lines(gpu=old, need=of(nvidia_driver_branch_min=550)) if entry.state == "problem"]


def test_secure_boot_with_a_key_or_signed_modules_lets_up_through() -> None:
    bare = {**BARE, "secure_boot": "enabled"}
    assert line(lines(gpu=NO_DRIVER, **bare, boot_key=True), "secure boot").state == "ok"
    assert line(lines(gpu=NO_DRIVER, need=of(nvidia_driver_prebuilt=True), **bare), "secure boot").state == "ok"


def test_a_branch_that_the_vendors_own_repository_does_not_have_keeps_up_away() -> None:
    url = "https://developer.download.nvidia.com/compute/cuda/repos"
    public = of(nvidia_driver_repository_url=url)
    told = [entry for entry in lines(gpu=NO_DRIVER, need=public, **BARE) if entry.blocks]
    assert [entry.check for entry in told] == ["driver"]
    assert "begins with branch 590" in told[0].what and "595" in told[0].hint
    debian = {"id": "debian", "version": "12"}
    for need, parts in (
        (of(), BARE),  # a mirror may have it
        (of(nvidia_driver_repository_url=url, nvidia_driver_branch=595), BARE),
        (of(nvidia_driver_repository_url=url, nvidia_driver_repository_manage=False), BARE),
        (of(nvidia_driver_repository_url=url, nvidia_driver_source="distribution"), BARE),
        (of(nvidia_driver_repository_url=url, nvidia_driver_manage=False), BARE),
        (public, {**BARE, "os": debian}),
    ):
        assert not [entry for entry in lines(gpu=NO_DRIVER, need=need, **parts) if entry.blocks]
    assert not [entry for entry in lines(need=public) if entry.blocks], "it is there already"


def test_where_nvidias_repositories_begin_is_what_the_role_says() -> None:
    found = {}
    for file in (Path(__file__).resolve().parents[2] / "roles/nvidia_driver/vars").glob("Debian*.yml"):
        begins = yaml.safe_load(file.read_text())["__nvidia_driver_os"]["vendor"]["first"]
        found[("debian", file.stem.removeprefix("Debian"))] = begins
    assert {system: begins for system, begins in found.items() if begins} == gpu.FIRST
