"""The whole stack on this machine, in the order in which a user meets it. Each test stands on the one before."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import docker
import openai
import pytest
import requests
from stack import REPO, Site, engine_core, haproxy_up, instances


def client(site: Site) -> openai.OpenAI:
    """The official client, configured by `deployctl env` alone."""
    env = site.client_env()
    return openai.OpenAI(base_url=env["OPENAI_BASE_URL"], api_key=env["OPENAI_API_KEY"], max_retries=0, timeout=120)


def test_up_ends_accepted(site: Site) -> None:
    printed = site.deployctl("up", timeout=1500)
    assert "ACCEPTED" in printed
    accepted = site.acceptance()
    assert accepted["verdict"] == "accepted"
    assert accepted["load"]["tiny-chat"]["failed"] == 0
    newest = site.runs[-1]
    assert newest.stat().st_mode & 0o777 == 0o700
    assert {"plan.json", "report.md", "report.html"} <= {p.name for p in newest.iterdir()}


def test_up_again_changes_nothing(site: Site, engine: docker.DockerClient) -> None:
    before = {name: c.attrs["State"]["StartedAt"] for name, c in instances(engine).items()}
    printed = site.deployctl("up")
    assert "changed=0" in printed
    assert {name: c.attrs["State"]["StartedAt"] for name, c in instances(engine).items()} == before


def test_check_mode_changes_nothing_and_foresees_nothing(site: Site) -> None:
    assert "changed=0" in site.deployctl("up", "--check")


def test_plain_ansible_does_the_same(site: Site) -> None:
    done = subprocess.run(
        ["ansible-playbook", "-i", str(site.inventory), "playbooks/up.yml"],
        cwd=REPO,
        env=site.env(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout[-3000:], done.stderr[-3000:])
    assert done.returncode == 0
    assert re.search(r"localhost +: ok=\d+ +changed=0 +unreachable=0 +failed=0", done.stdout)


def test_openai_client_chats(site: Site) -> None:
    answer = client(site).chat.completions.create(
        model="chat-default", messages=[{"role": "user", "content": "hello"}], max_tokens=8
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert {m.id for m in client(site).models.list()} == {"tiny-chat", "chat-default"}
    assert client(site).models.retrieve("tiny-chat").id == "tiny-chat"


def test_openai_client_streams(site: Site) -> None:
    made = client(site)
    for _ in range(4):  # engines that share two busy cores now and then hand over a stream in one piece
        begun = time.monotonic()
        arrivals = [
            time.monotonic() - begun
            for _ in made.chat.completions.create(
                model="tiny-chat",
                messages=[{"role": "user", "content": "count"}],
                max_tokens=200,
                stream=True,
                extra_body={"ignore_eos": True},
            )
        ]
        assert len(arrivals) > 20
        if arrivals[0] < arrivals[-1] / 2:
            return
    raise AssertionError(f"first chunk after {arrivals[0]:.2f} s, last after {arrivals[-1]:.2f} s, four times")


def test_openai_client_calls_a_tool(site: Site) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "set_light",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"state": {"type": "string", "enum": ["on", "off"]}},
                "required": ["state"],
                "additionalProperties": False,
            },
        },
    }
    for _ in range(3):  # random weights may pad with white space until the tokens are used up
        answer = client(site).chat.completions.create(
            model="tiny-chat",
            messages=[{"role": "user", "content": "light on"}],
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "set_light"}},
            max_tokens=1000,
        )
        call: Any = (answer.choices[0].message.tool_calls or [None])[0]
        if call is not None and answer.choices[0].finish_reason != "length":
            break
    assert json.loads(call.function.arguments)["state"] in ("on", "off")


def test_errors_are_openai_errors(site: Site) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client(site).chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
    env = site.client_env()
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=env["OPENAI_BASE_URL"], api_key="sk-wrong", max_retries=0).models.list()
    with pytest.raises(openai.APIStatusError) as caught:
        client(site).chat.completions.create(model="tiny-chat", messages=[{"role": "user", "content": "x" * 3_000_000}])
    assert caught.value.status_code == 413


def counted(engine: docker.DockerClient, metric: str) -> float:
    """A metric of vLLM, summed over the site's engines and its own labels."""
    total = 0.0
    for container in instances(engine).values():
        port = container.ports["8000/tcp"][0]["HostPort"]
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        total += sum(float(n) for n in re.findall(rf"^{re.escape(metric)}\{{.*\}} (\S+)$", text, re.M))
    return total


def test_an_engine_stops_when_its_client_is_gone(site: Site, engine: docker.DockerClient) -> None:
    tokens, most = counted(engine, "vllm:generation_tokens_total"), 8 * 1000
    with pytest.raises(openai.APITimeoutError):
        client(site).completions.create(
            model="tiny-chat", prompt="x", max_tokens=most // 8, n=8, timeout=1, extra_body={"ignore_eos": True}
        )
    by = time.monotonic() + 30
    while counted(engine, "vllm:num_requests_running") and time.monotonic() < by:
        time.sleep(0.2)
    assert not counted(engine, "vllm:num_requests_running")
    assert counted(engine, "vllm:generation_tokens_total") - tokens < most / 2


def test_jaeger_has_spans_of_both_instances(site: Site) -> None:
    services = requests.get(site.client_env()["JAEGER_URL"] + "/api/v3/services", timeout=10).json()["services"]
    assert {"vllm-tiny-chat-0", "vllm-tiny-chat-1"} <= set(services)


def test_status_shows_both_healthy(site: Site) -> None:
    printed = site.deployctl("status")
    assert "tiny-chat-0" in printed
    assert "tiny-chat-1" in printed
    data = json.loads(
        subprocess.run(
            ["deployctl", "status", str(site.inventory), "--json"],
            cwd=REPO, env=site.env(), capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert len(data["instances"]) == 2


def looked(site: Site, command: str, code: int, *args: str) -> dict[str, Any]:
    """What a command that only looks says as JSON; its exit code must be this one."""
    done = subprocess.run(
        ["deployctl", command, str(site.inventory), "--json", *args],
        cwd=REPO, env=site.env(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_doctor_finds_nothing_wrong_and_sees_a_stranger_on_a_port(site: Site) -> None:
    answer = looked(site, "doctor", 0)
    assert answer["ok"]
    assert {line["state"] for line in answer["lines"]} <= {"ok", "hint", "skipped"}
    assert "held by this site's containers" in next(li["what"] for li in answer["lines"] if li["check"] == "ports")
    with socket.create_server(("127.0.0.1", 18555)):
        answer = looked(site, "doctor", 3, "-e", "haproxy_stats_port=18555")
        printed = site.deployctl("up", "-e", "haproxy_stats_port=18555", code=3)
    assert [line["check"] for line in answer["lines"] if line["blocks"]] == ["port 18555"]
    assert "nothing was touched" in printed
    assert "localhost, port 18555: held by" in printed


def test_diff_is_in_step_and_names_what_is_not(site: Site, engine: docker.DockerClient) -> None:
    assert looked(site, "diff", 0)["drift"] == []
    jaeger, instance = engine.containers.get("jaeger"), instances(engine)["vllm-tiny-chat-0"]
    config = Path("/var/lib/deployctl/haproxy/etc/haproxy.cfg")
    kept = config.read_text()
    jaeger.stop(timeout=5)
    instance.update(restart_policy={"Name": "no"})
    config.write_text(kept.replace("maxconn", "# by hand\n    maxconn", 1))
    first = site.models()
    site.write_models([{**first[0], "replicas": 3}])
    drift = [(line["role"], *line["what"]) for line in looked(site, "diff", 5)["drift"]]
    site.write_models(first)
    config.write_text(kept)
    instance.update(restart_policy={"Name": "unless-stopped"})
    jaeger.start()
    assert ("jaeger", "not running") in drift
    assert ("vllm", "vllm-tiny-chat-0 (restart_policy)") in drift
    assert ("haproxy", str(config)) in drift
    assert ("vllm", "vllm-tiny-chat-2 (absent)") in drift
    assert looked(site, "diff", 0)["in_step"]


def test_the_key_stands_nowhere_it_should_not(site: Site, engine: docker.DockerClient) -> None:
    key = site.client_env()["OPENAI_API_KEY"]
    secret = key.removeprefix("sk-")
    for container in engine.containers.list(all=True):
        assert secret not in json.dumps(container.attrs)
        assert secret not in container.logs().decode(errors="replace")
    for path in (p for p in (site.root / "runs").rglob("*") if p.is_file()):
        assert secret not in path.read_text(errors="replace"), path
    assert secret not in Path("/var/lib/deployctl/haproxy/etc/haproxy.cfg").read_text()


def test_only_loopback_listens_and_engines_have_no_privileges(engine: docker.DockerClient) -> None:
    for container in engine.containers.list(filters={"label": "deployctl.site=local"}):
        host = container.attrs["HostConfig"]
        assert host["CapDrop"] == ["ALL"], container.name
        assert host["ReadonlyRootfs"], container.name
        assert not host["Privileged"], container.name
        assert any(o.startswith("no-new-privileges") for o in host["SecurityOpt"]), container.name
        assert container.attrs["Config"]["User"] not in ("", "0", "root"), container.name
        for bound in (host["PortBindings"] or {}).values():
            assert all(b["HostIp"] == "127.0.0.1" for b in bound), container.name


def send_until(stop: threading.Event, env: dict[str, str], failures: list[str], sent: list[int]) -> None:
    """Non-streamed requests without a client's own retries, until told to stop."""
    headers = {"Authorization": f"Bearer {env['OPENAI_API_KEY']}"}
    body = {
        "model": "tiny-chat",
        "messages": [{"role": "user", "content": "go on"}],
        "max_tokens": 60,
        "ignore_eos": True,
    }
    with requests.Session() as session:
        while not stop.is_set():
            try:
                answer = session.post(
                    env["OPENAI_BASE_URL"] + "/chat/completions", json=body, headers=headers, timeout=120
                )
                if answer.status_code != 200 or answer.json()["usage"]["completion_tokens"] != 60:
                    failures.append(f"{answer.status_code} {answer.text[:200]}")
            except requests.RequestException as error:
                failures.append(repr(error))
            sent.append(1)


@pytest.mark.parametrize("victim", ["server", "engine core"])
def test_kill_9_under_load_loses_nothing(site: Site, engine: docker.DockerClient, victim: str) -> None:
    container = instances(engine)["vllm-tiny-chat-0"]
    pid = container.attrs["State"]["Pid"] if victim == "server" else engine_core(container)
    stop, failures, sent = threading.Event(), [], []
    asked = (stop, site.client_env(), failures, sent)
    threads = [threading.Thread(target=send_until, args=asked) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    os.kill(pid, signal.SIGKILL)
    time.sleep(12)
    enough = time.monotonic() + 120
    while len(sent) <= 20 and time.monotonic() < enough:  # slow cores need longer for as many
        time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(sent) > 20
    assert not failures, failures[:3]
    # It comes back without a hand.
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if "2/2" in (last := haproxy_up()):
            break
        time.sleep(2)
    assert "2/2" in last


def test_a_model_is_added_and_removed(site: Site, engine: docker.DockerClient) -> None:
    before = {name: (c.id, c.attrs["State"]["StartedAt"]) for name, c in instances(engine).items()}
    first = site.models()
    # In front of the others: the place in the list must not matter either.
    site.write_models([{"name": "second", "source": "synthetic:tiny-chat-long", "aliases": ["other"]}, *first])
    printed = site.deployctl("up")
    assert "ACCEPTED" in printed
    after = {name: (c.id, c.attrs["State"]["StartedAt"]) for name, c in instances(engine).items()}
    assert {n: after[n] for n in before} == before
    assert len(after) == 3
    assert "second" in site.acceptance()["load"]
    answer = client(site).chat.completions.create(
        model="other", messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    assert answer.usage is not None

    site.write_models(first)
    site.deployctl("up")
    assert {name: (c.id, c.attrs["State"]["StartedAt"]) for name, c in instances(engine).items()} == before
    with pytest.raises(openai.NotFoundError):
        client(site).chat.completions.create(model="second", messages=[{"role": "user", "content": "hi"}])


def test_a_broken_change_leaves_the_old_instances_serving(site: Site, engine: docker.DockerClient) -> None:
    before = {name: c.id for name, c in instances(engine).items()}
    good = site.models()
    site.write_models([{**good[0], "engine_args": {"quantization": "awq"}}])
    printed = site.deployctl("up", code=3)
    assert "runs with the old ones again" in printed
    assert not Path("/var/lib/deployctl/operator.json").exists()  # no other machine has to wait
    site.write_models(good)
    assert {name: c.id for name, c in instances(engine).items()} == before
    assert "ACCEPTED" in site.deployctl("up")


def test_two_runs_on_one_site_the_second_is_refused(site: Site) -> None:
    first = site.start("accept")  # an `up` with nothing to do would be through too soon
    time.sleep(2)
    printed = site.deployctl("up", code=2)
    assert str(first.pid) in printed
    first.communicate(timeout=300)
    assert first.returncode == 0


# Before an `up` that has it accepted again, so that nothing after it has to.
def test_rejected_is_exit_code_4(site: Site) -> None:
    printed = site.deployctl("accept", "-e", "acceptance_load_ttft_p95_ms_max=0.001", code=4)
    assert "REJECTED" in printed
    assert site.acceptance()["verdict"] == "rejected"


def test_interrupted_up_is_finished_by_the_next(site: Site, engine: docker.DockerClient) -> None:
    instances(engine)["vllm-tiny-chat-1"].remove(force=True)
    run = site.start("up")
    deadline = time.monotonic() + 60
    while "vllm-tiny-chat-1" not in instances(engine) and time.monotonic() < deadline:
        time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    assert "ACCEPTED" in site.deployctl("up")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
