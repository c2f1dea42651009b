"""The inventories that deployctl ships: each plans from what it declares, and knows no other site's values."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from test_plan_ansible import ansible

from deploy_cli.summary import show_plan

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(file.name for file in (ROOT / "inventories").glob("*.yml"))
FOLDERS = sorted(folder.name for folder in (ROOT / "inventories/group_vars").iterdir())


def tree(name: str) -> dict[str, Any]:
    """The site groups of an inventory, as written."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "inventories" / name).read_text())["all"]["children"]
    return found


def groups(level: dict[str, Any]) -> set[str]:
    """Names of all groups, at any depth."""
    return {name for key, group in level.items() for name in (key, *groups((group or {}).get("children") or {}))}


def declared(site: str) -> dict[str, Any]:
    """Every variable of a site, as its files hold them, unrendered."""
    values: dict[str, Any] = {}
    for file in sorted((ROOT / "inventories/group_vars" / site).glob("*.yml")):
        values |= yaml.safe_load(file.read_text())
    return values


def planned(folder: Path, name: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """plan.json of an inventory in a copy of inventories/, through the real Ansible."""
    done = ansible(folder, inventory=f"inventories/{name}")
    assert done.returncode == 0, done.stdout + done.stderr
    plan: dict[str, Any] = json.loads((folder / "run/plan.json").read_text())
    return plan, done


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of inventories/ in it, so that keys and changes land there."""
    shutil.copytree(ROOT / "inventories", tmp_path / "inventories")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_plans_with_no_host_reachable_and_says_so(name: str, copy: Path) -> None:
    plan, done = planned(copy, name)
    (site,) = tree(name)
    values = declared(site)
    seats = Counter((i["host"], i["device_kind"], d) for i in plan["instances"] for d in i["devices"])
    shares: Counter[tuple[str, int]] = Counter()
    for model in values["models"]:
        own = [i for i in plan["instances"] if i["model"] == model["name"]]
        assert len(own) == model.get("replicas") or model.get("replicas", "max") == "max"
        assert {len(i["devices"]) for i in own} == {model.get("tensor_parallel", 1)}
        for instance in own:
            shares.update({(instance["host"], d): model.get("memory_share", 0) for d in instance["devices"]})
    wanted = {
        (host, entry["kind"], index)
        for host in tree(name)[site]["children"]["serving"]["hosts"]
        for entry in values["devices"]
        for index in range(entry["count"])
    }
    gpus = {seat for seat in wanted if seat[1] == "nvidia"}
    assert set(seats) <= wanted
    assert gpus <= set(seats), "a GPU that is declared is used"
    assert all(share <= 1 for share in shares.values())
    assert "unreachable=0" in done.stdout
    console = Console(record=True, width=200, file=io.StringIO())
    show_plan(plan, name, console)
    hosts = ", ".join(sorted({host for host, _, _ in wanted}))
    assert f"devices as declared, no host was looked at: {hosts}\n" in console.export_text()


def test_the_light_model_shares_one_gpu_and_waits_for_it(copy: Path) -> None:
    plan, _ = planned(copy, "lenovo-sr675.yml")
    chat, light = declared("lenovo_sr675")["models"]
    on = {i["name"]: i for i in plan["instances"]}
    (beside,) = [i for i in plan["instances"] if i["model"] == light["name"]]
    assert on[beside["start_after"]]["model"] == chat["name"]
    assert on[beside["start_after"]]["devices"] == beside["devices"]


def test_the_gateway_of_its_own_reaches_every_engine_at_its_host(copy: Path) -> None:
    plan, _ = planned(copy, "three-hosts.yml")
    serving = {i["host"] for i in plan["instances"]}
    assert len(serving) == 2 and not serving & set(plan["gateway"]["hosts"])
    for instance in plan["instances"]:
        assert instance["publish_address"] == plan["hosts"][instance["host"]]["address"]


def test_what_is_older_than_turing_gets_what_still_knows_it() -> None:
    for site in FOLDERS:
        values = declared(site)
        old = [d for d in values["devices"] if d["kind"] == "nvidia" and float(d["compute_capability"]) < 7.5]
        if old:
            assert values["nvidia_driver_branch"] <= 580
            assert values["nvidia_driver_modules"] == "proprietary"
            assert {model["dtype"] for model in values["models"]} == {"half"}
            assert int(values["images_vllm_version"].split(".")[1]) < 20, "images of CUDA 13 have no code for it"


def test_every_folder_of_values_belongs_to_one_inventory() -> None:
    assert len(NAMES) == len(FOLDERS)
    for folder in FOLDERS:
        assert len([name for name in NAMES if folder in groups(tree(name))]) == 1, folder


@pytest.mark.parametrize("name", NAMES)
def test_another_sites_values_change_nothing(name: str, copy: Path) -> None:
    before, _ = planned(copy, name)
    (own,) = tree(name)
    for folder in (copy / "inventories/group_vars").iterdir():
        if folder.name != own:
            for file in folder.iterdir():
                file.unlink()
            values = {"devices": [{"kind": "cpu", "count": 64}], "models": [{"name": "x", "source": "a/b"}]}
            strange = values | {"haproxy_port": 9999, "ansible_host": "elsewhere", "vllm_port_base": 20000}
            (folder / "main.yml").write_text(yaml.safe_dump(strange))
    after, _ = planned(copy, name)
    assert after == before
