"""The firewall's rules: what the play takes from the plan, and how the role's filters say it to nftables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import loaded

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/host_firewall"
PLAYS = ROOT / "playbooks/plays"


FILTERS = loaded("roles/host_firewall/filter_plugins/host_firewall.py").FilterModule().filters()


def told(
    inventory: str, folder: Path, running: dict[str, list[int]] | None = None, address: str = "198.51.100.11"
) -> dict[str, list[dict[str, Any]]]:
    """`host_firewall_rules` of each host, from the play's own variables, by the real Ansible; no host is reached."""
    engines = {
        host: {"instances": {f"{host}-{port}": {"host": host, "port": port, "address": address} for port in ports}}
        for host, ports in (running or {}).items()
    }
    plays = yaml.safe_load((PLAYS / "hosts.yml").read_text())
    play = next(play for play in plays if any(role["role"] == "host_firewall" for role in play.get("roles", [])))
    book = [
        {"ansible.builtin.import_playbook": str(ROOT / "playbooks/plan.yml")},
        {
            "hosts": "serving:gateway:telemetry",
            "connection": "local",
            "gather_facts": False,
            "vars": {**play["vars"], "engines": engines},
            "vars_files": [str(PLAYS / file) for file in play["vars_files"]],
            "tasks": [
                {
                    "ansible.builtin.set_fact": {"site_engines": "{{ engines[inventory_hostname] }}"},
                    "when": "engines | length > 0",
                },
                {
                    "ansible.builtin.copy": {
                        "content": "{{ host_firewall_rules | to_json }}",
                        "dest": str(folder) + "/{{ inventory_hostname }}.rules",
                        "mode": "0600",
                    }
                },
            ],
        },
    ]
    (folder / "book.yml").write_text(yaml.safe_dump(book))
    shutil.copytree(ROOT / "inventories", folder / "inventories")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "DEPLOYCTL_"))}
    environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "DEPLOYCTL_RUN_DIR": str(folder / "run")}
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    done = subprocess.run(
        [program, "-i", f"inventories/{inventory}", "-e", local, "book.yml"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.rules")}


@pytest.mark.parametrize("inventory", ["local.yml", "lenovo-sr675.yml"])
def test_a_single_host_needs_no_rule(inventory: str, tmp_path: Path) -> None:
    assert list(told(inventory, tmp_path).values()) == [[]]


def test_only_the_gateway_reaches_engines_and_only_the_site_the_collector(tmp_path: Path) -> None:
    found = told("three-hosts.yml", tmp_path)
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    address = {host: entry["address"] for host, entry in plan["hosts"].items()}
    assert set(found) == set(address)
    front, *others = plan["gateway"]["hosts"]
    assert not others
    for host in set(address) - {front}:
        ports = [i["port"] for i in plan["instances"] if i["host"] == host]
        assert found[host] == [{"name": "engines", "ports": ports, "sources": [address[front]]}] and ports
    senders = [address[host] for host in address if host != front]
    assert found[front] == [{"name": "traces", "ports": [plan["telemetry"]["otlp_port"]], "sources": senders}]


def test_what_is_about_to_leave_is_behind_the_rules_until_it_is_gone(tmp_path: Path) -> None:
    found = told("three-hosts.yml", tmp_path, {"serve1": [18765], "serve2": [], "front": []})
    assert 18765 in found["serve1"][0]["ports"]
    assert 18765 not in found["serve2"][0]["ports"]
    assert [rule["name"] for rule in found["front"]] == ["traces"]


@pytest.mark.parametrize(("address", "ports"), [("198.51.100.11", [[18765]]), ("127.0.0.1", [])])
def test_where_nothing_is_published_any_more_the_last_of_it_is_behind_a_rule(
    address: str, ports: list[list[int]], tmp_path: Path
) -> None:
    (rules,) = told("local.yml", tmp_path, {"localhost": [18765]}, address).values()
    assert [rule["ports"] for rule in rules] == ports


RULES = [{"name": "engines", "ports": [8101, 8100, 8101], "sources": ["front", "192.0.2.7", "fd00::7"]}]
ANSWER = {"item": "front", "rc": 0, "stdout": "192.0.2.6 STREAM front\n192.0.2.6 DGRAM\nfd00::6 STREAM\n"}


def test_names_are_asked_for_and_addresses_are_not() -> None:
    assert FILTERS["host_firewall_names"](RULES, ["10.0.0.0/8", "front", "prometheus"]) == ["front", "prometheus"]


def test_sources_go_by_family_in_order_and_without_overlap() -> None:
    extra = ["198.51.100.9/24", "198.51.100.4"]
    assert FILTERS["host_firewall_resolved"](RULES, extra, [ANSWER]) == [
        {
            "name": "engines",
            "ports": [8100, 8101],
            "v4": ["192.0.2.6/31", "198.51.100.0/24"],
            "v6": ["fd00::6/127"],
        }
    ]


@pytest.mark.parametrize("printed", ["", "127.0.1.1 STREAM front\n::1 STREAM\nfe80::1 STREAM\n"])
def test_a_name_without_an_address_that_others_have_is_told(printed: str) -> None:
    assert FILTERS["host_firewall_unknown"]([{**ANSWER, "stdout": printed}]) == ["front"]
    assert FILTERS["host_firewall_unknown"]([ANSWER]) == []


def test_what_is_neither_network_nor_name_is_asked_for_and_so_refused() -> None:
    assert FILTERS["host_firewall_names"]([], ["10.0.0.0/33"]) == ["10.0.0.0/33"]


def test_the_bridge_of_the_network_is_known_by_its_id_or_its_given_name() -> None:
    own = {"Id": "ab" * 32, "Options": {}, "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd01::/64"}]}}
    named = {"Id": "cd" * 32, "Options": {"com.docker.network.bridge.name": "stack0"}, "IPAM": {"Config": None}}
    found = FILTERS["host_firewall_bridge"](json.dumps([own, named]))
    assert found == {
        "interfaces": ["docker0", "br-abababababab", "stack0"],
        "v4": ["172.18.0.0/16"],
        "v6": ["fd01::/64"],
    }
    for nothing in ("", "[]"):
        assert FILTERS["host_firewall_bridge"](nothing) == {"interfaces": ["docker0"], "v4": [], "v6": []}
