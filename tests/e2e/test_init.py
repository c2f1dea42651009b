"""`deployctl init` over real SSH: two hosts, one behind the other; unknown keys, sudo with and without a password.

The hosts are containers of this test alone. The second one listens on its loopback only, in the first one's network:
nothing but a jump through the first reaches it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pexpect
import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
IMAGES = ("deployctl-molecule/host:trixie", "debian:trixie")
PASSWORD = "let-me-in-42"
INSTALL = """
set -e
if [ -n "$MIRROR" ]; then
  echo "deb $MIRROR trixie main" > /etc/apt/sources.list
  rm -f /etc/apt/sources.list.d/*
fi
printf '%s\\n' "$SETTINGS" > /etc/apt/apt.conf.d/99-test
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends openssh-server sudo python3 iproute2
mkdir -p /run/sshd
echo 'open ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/open
echo 'asks ALL=(ALL) ALL' > /etc/sudoers.d/asks
for user in root open asks; do
  [ $user = root ] || useradd -m -s /bin/bash $user
  home=$(getent passwd $user | cut -d: -f6)
  mkdir -p -m 700 $home/.ssh
  echo "$KEY" > $home/.ssh/authorized_keys
  chown -R $user: $home/.ssh
done
echo "asks:$PASSWORD" | chpasswd
"""


@dataclass
class Lab:
    """The two hosts, and a user's ssh with its configuration, in a folder of their own."""

    root: Path
    front: Any
    inner: Any

    @property
    def known(self) -> Path:
        """The known host keys."""
        return self.root / "known_hosts"

    def env(self) -> dict[str, str]:
        """Environment of every command; the user's ssh comes first in PATH."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTHONDONTWRITE"))}
        return {
            **kept,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "DEPLOYCTL_RUNS_DIR": str(self.root / "runs"),
            "COLUMNS": "160",
        }

    def deployctl(self, *words: str) -> tuple[int, str]:
        """Run a command in the lab's folder; (exit code, all it printed)."""
        done = subprocess.run(
            ["deployctl", *words],
            cwd=self.root,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        print(f"$ deployctl {' '.join(words)} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode, done.stdout + done.stderr

    def trust(self) -> None:
        """Know the hosts' keys, read where nobody stands between: inside them."""
        address = self.front.attrs["NetworkSettings"]["IPAddress"]
        lines = []
        for container, name in ((self.front, address), (self.inner, "[127.0.0.1]:2222")):
            key = container.exec_run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).output.decode()
            lines.append(f"{name} {' '.join(key.split()[:2])}\n")
        self.known.write_text("".join(lines))


def mirror() -> tuple[str, str]:
    """This machine's package mirror and settings, as the molecule scenarios use them."""
    asked = "import image_parts; print(image_parts.host_mirror())"
    folder = REPO / "roles/images/module_utils"
    found = subprocess.run([sys.executable, "-c", asked], cwd=folder, capture_output=True, text=True, check=True).stdout
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = ("Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::Check-Valid-Until ")
    return found.strip(), "\n".join(line for line in dump.splitlines() if line.startswith(wanted))


def user_ssh(root: Path) -> str:
    """A user's key and ssh configuration, without touching those of whoever runs the test; the public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "key"], check=True)
    wrapper = root / "bin" / "ssh"
    wrapper.parent.mkdir()
    real = subprocess.run(["which", "ssh"], capture_output=True, text=True, check=True).stdout.strip()
    wrapper.write_text(f'#!/bin/sh\nexec {real} -F {root}/config "$@"\n')
    wrapper.chmod(0o755)
    return (root / "key.pub").read_text().strip()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Both hosts, running."""
    engine = docker.from_env()
    image = next((name for name in IMAGES if engine.images.list(name)), None)
    if image is None:
        pytest.skip(f"none of the images {', '.join(IMAGES)} is here: a molecule run builds them")
    root = tmp_path_factory.mktemp("init")
    key, (source, settings) = user_ssh(root), mirror()
    name = f"deployctl-init-{os.getpid()}"
    made: list[Any] = []
    try:
        front = engine.containers.run(image, ["sleep", "infinity"], name=name, hostname="front", detach=True)
        made.append(front)
        told = {"MIRROR": source, "SETTINGS": settings, "KEY": key, "PASSWORD": PASSWORD}
        code, output = front.exec_run(["sh", "-c", INSTALL], environment=told)
        assert code == 0, output.decode()[-3000:]
        copied = front.commit(repository=name)
        front.exec_run(["/usr/sbin/sshd"])
        own = "rm -f /etc/ssh/ssh_host_*; ssh-keygen -A; cat /proc/sys/kernel/random/uuid | tr -d - > /etc/machine-id; "
        serve = f"{own} mkdir -p /run/sshd; exec /usr/sbin/sshd -D -p 2222 -o ListenAddress=127.0.0.1"
        made.append(engine.containers.run(copied.id, ["sh", "-c", serve], name=f"{name}-inner", detach=True,
                                          network_mode=f"container:{front.id}"))  # fmt: skip
        front.reload()
        (root / "config").write_text(
            f"Host *\n  IdentityFile {root}/key\n  IdentitiesOnly yes\n  UserKnownHostsFile {root}/known_hosts\n"
            f"Host front\n  HostName {front.attrs['NetworkSettings']['IPAddress']}\n"
            "Host inner\n  HostName 127.0.0.1\n  Port 2222\n  ProxyJump root@front\n"
            "Host closed\n  HostName 127.0.0.1\n  Port 1\n"
        )
        yield Lab(root, front, made[1])
    finally:
        for container in reversed(made):
            container.remove(force=True, v=True)
        if engine.images.list(name):
            engine.images.remove(name, force=True)


def seen_by_others(secret: bytes) -> list[str]:
    """Processes whose command line or environment holds a secret."""
    found = []
    for process in Path("/proc").iterdir():
        for file in ("cmdline", "environ") if process.name.isdigit() else ():
            try:
                if secret in (process / file).read_bytes():
                    found.append(f"{process.name}/{file}")
            except OSError:
                continue  # it has ended meanwhile
    return found


def test_unknown_keys_are_told_with_their_fingerprints(lab: Lab) -> None:
    lab.known.unlink(missing_ok=True)
    code, told = lab.deployctl("init", "lab", "root@front", "open@inner")
    assert code == 3 and "2 problems; nothing was written" in told
    own = lab.front.exec_run(["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]).output.decode().split()[1]
    # The inner host cannot even be asked: the jump host's key is unknown.
    assert told.count(own) == 2 and "ssh root@front" in told and "ssh-keyscan" in told
    assert not lab.known.exists(), "nothing was trusted"
    assert not (lab.root / "inventories").exists()


def test_all_that_keeps_from_looking_is_told_at_once(lab: Lab) -> None:
    lab.trust()
    hide = "for f in /usr/bin/python3*; do mv $f /opt/; done"
    lab.inner.exec_run(["sh", "-c", hide])
    try:
        code, told = lab.deployctl("init", "lab", "asks@front", "root@inner", "root@closed")
    finally:
        lab.inner.exec_run(["sh", "-c", "mv /opt/python3* /usr/bin/"])
    assert code == 3 and "3 problems; nothing was written" in told
    for where, what, hint in (
        ("asks@front", "sudo wants a password", "-K"),
        ("root@inner", "there is no python3", "apt-get install python3"),
        ("root@closed", "it cannot be reached", "ProxyJump"),
    ):
        block = told.partition(f"Error: {where}\n")[2].partition("\nError:")[0]
        assert what in block and hint in block, told
    assert not (lab.root / "inventories").exists()


def test_with_the_password_asked_once_both_are_written(lab: Lab) -> None:
    lab.trust()
    words = ["init", "lab", "asks@front", "open@inner", "-K", "-q"]
    child = pexpect.spawn("deployctl", words, cwd=str(lab.root), env=lab.env(), encoding="utf-8", timeout=120)
    child.expect("Become password")
    child.sendline(PASSWORD)
    leaks: list[str] = []
    while child.isalive():
        leaks += seen_by_others(PASSWORD.encode())
        if child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=1) == 0:
            break
    child.close()
    assert child.exitstatus == 0, child.before
    assert leaks == [] and "deployctl plan inventories/lab.yml" in child.before
    for file in lab.root.rglob("*"):
        if file.is_file() and not file.is_socket():
            assert PASSWORD.encode() not in file.read_bytes(), file
    groups = yaml.safe_load((lab.root / "inventories/lab.yml").read_text())["all"]["children"]["lab"]["children"]
    front, inner = groups["serving"]["hosts"]["front"], groups["serving"]["hosts"]["inner"]
    assert (front["ansible_user"], front["ansible_become"]) == ("asks", True)
    # The alias stays what it is: port and jump host remain the user's ssh configuration's.
    assert (inner["ansible_host"], inner["ansible_user"], inner["ansible_become"]) == ("inner", "open", True)
    assert "ansible_port" not in inner
    code, told = lab.deployctl("plan", "inventories/lab.yml")
    assert code == 0 and "tiny-chat-1" in told


def test_files_that_are_there_stay_unless_forced(lab: Lab) -> None:
    lab.trust()
    file = lab.root / "inventories" / "over.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("# mine\n")
    code, told = lab.deployctl("init", "over", "root@front")
    assert code == 2 and "-# mine" in told and "--force" in told
    assert file.read_text() == "# mine\n" and not (file.parent / "group_vars/over").exists()
    code, told = lab.deployctl("init", "over", "root@front", "--force")
    assert code == 0 and "-# mine" in told
    values = yaml.safe_load(file.read_text())["all"]["children"]["over"]["children"]["serving"]["hosts"]["front"]
    assert "ansible_become" not in values, "root needs no sudo"
