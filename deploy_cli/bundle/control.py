"""Pack what a control node without a network is set up from: deployctl, what it depends on, and a script that installs.

Wheels are bound to a Python version and a machine: those of this Python are there, and those of the versions asked for
besides. The script refuses any other Python.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from deploy_cli import paths
from deploy_cli.bundle.writer import Writer
from deploy_cli.errors import DeployctlError

NAME = "deployctl"
INSTALLER = "pip>=25,<27"  # runs out of its wheel on every Python that deployctl runs on
OLDEST_GLIBC, NEWEST_GLIBC = 17, 36  # 2.x of the wheels taken for another Python; Debian 12 has 2.36
BOOTSTRAP = """\
#!/bin/sh
# Sets deployctl up from this bundle, without a network:  sh bootstrap.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/venv}
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case " @PYTHONS@ " in
  *" $version "*) ;;
  *) echo "the bundle was made for Python @PYTHONS@, this is $version; name another with PYTHON=..." >&2; exit 2 ;;
esac
(cd "$here" && sha256sum --quiet --check SHA256SUMS)
# Not ensurepip: a minimal Debian has none. pip runs out of its own wheel.
"$python" -m venv --without-pip "$target"
set -- "$target" "$here"/wheels/pip-*.whl
"$1/bin/python" "$2/pip" install --quiet --no-index --find-links "$here/wheels" deployctl pip
echo "deployctl is in $target/bin; next: $target/bin/deployctl up INVENTORY --bundle FILE"
"""
README = """\
A bundle of deployctl: everything that one site needs, for a network without a way out.

On a machine that reaches the hosts by SSH (or is the host) and has the site's inventory, which is not in here:

    tar -xf FILE README bootstrap.sh SHA256SUMS wheels && sh bootstrap.sh
    venv/bin/deployctl up INVENTORY --bundle FILE

FILE is used as it is; nothing else needs to be unpacked. manifest.json names every file with its SHA-256.
"""


def python_version() -> str:
    """Return the version that the wheels fit: `3.11`."""
    return ".".join(platform.python_version_tuple()[:2])


def pack(writer: Writer, work: Path, versions: list[str], say: Callable[[str], None]) -> None:
    """Add wheels, checksums, script and the page on how to use them. DeployctlError."""
    say("wheels of deployctl and what it depends on")
    versions = sorted({python_version(), *versions})
    folder = wheels(work, versions)
    files = sorted(folder.glob("*.whl"))
    sums = ""
    for file in files:
        writer.add_file(f"wheels/{file.name}", file)
        sums += f"{writer.files[f'wheels/{file.name}']['sha256']}  wheels/{file.name}\n"
    for name, text in (
        ("SHA256SUMS", sums),
        ("bootstrap.sh", BOOTSTRAP.replace("@PYTHONS@", " ".join(versions))),
        ("README", README),
    ):
        if name not in writer.files:
            writer.add(name, [text.encode()])


def wheels(work: Path, versions: list[str]) -> Path:
    """Download the wheels of the lock file, and make deployctl's own; what is there from the last time is kept."""
    lock = paths.content_dir() / "requirements.lock"
    if not lock.is_file():
        raise DeployctlError(f"there is no {lock}", "pack from a checkout, or with `bundle_wheels: false`")
    recipe = hashlib.sha256(lock.read_bytes() + f"{versions} {platform.machine()}".encode()).hexdigest()
    folder = work / "wheels" / recipe[:16]
    if not (folder / "complete").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _pip("wheel", "--require-hashes", "--requirement", str(lock), "--wheel-dir", str(folder))
        _pip("download", "--no-deps", "--only-binary=:all:", INSTALLER, "--dest", str(folder))
        for version in versions:
            if version != python_version():
                _for_another_python(lock, version, folder)
        (folder / "complete").write_text("", encoding="utf-8")
    for old in folder.glob(f"{NAME}-*.whl"):
        old.unlink()
    own(folder)
    return folder


def _for_another_python(lock: Path, version: str, folder: Path) -> None:
    # pip asks markers of the Python that runs it; without them a wheel too many comes, and none too few.
    bare = folder / "requirements-without-markers.txt"
    bare.write_text(re.sub(r"^([\w.-]+==\S+) ;[^\\\n]*", r"\1 ", lock.read_text("utf-8"), flags=re.M), encoding="utf-8")
    tag, machine = "cp" + version.replace(".", ""), platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST_GLIBC, NEWEST_GLIBC + 1)]
    words = ["--python-version", version, "--implementation", "cp", "--abi", tag, "--abi", "abi3", "--abi", "none"]
    for name in [*platforms, f"manylinux2014_{machine}", f"linux_{machine}", "any"]:
        words += ["--platform", name]
    words += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(bare), "--dest", str(folder)]
    _pip("download", *words)


def own(folder: Path) -> Path:
    """Put deployctl's own wheel into a folder: of the package that runs, with the playbooks and roles that it uses."""
    about, entry_points = _about()
    stem = f"{NAME}-{re.findall('^Version: (.+)$', about, re.M)[0]}"
    target = folder / f"{stem}-py3-none-any.whl"
    members = {name: file.read_bytes() for name, file in sources().items()}
    info = f"{stem}.dist-info"
    members[f"{info}/METADATA"] = about.encode()
    members[f"{info}/entry_points.txt"] = entry_points.encode()
    members[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: true\nTag: py3-none-any\n".encode()
    )
    record = "".join(f"{name},sha256={_urlsafe(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            # A fixed time: the same files make the same wheel.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return target


def sources() -> dict[str, Path]:
    """Return deployctl's own files as {place in the wheel: file}."""
    content = paths.content_dir()
    found: dict[str, Path] = {}
    for file in sorted(paths.PACKAGE.rglob("*")):
        inner = file.relative_to(paths.PACKAGE)
        if file.is_file() and inner.parts[0] != "_content":
            found[f"deploy_cli/{inner}"] = file
    for name in ("playbooks", "roles", "templates", "ansible.cfg", "requirements.lock"):
        top = content / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.is_file():
                found[f"deploy_cli/_content/{file.relative_to(content)}"] = file
    return {name: file for name, file in found.items() if "__pycache__" not in file.parts}


def fingerprint() -> str:
    """Return a hash of deployctl's own files."""
    digest = hashlib.sha256()
    for name, file in sources().items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _about() -> tuple[str, str]:
    """METADATA and entry_points.txt: of the installed package, in a checkout of its pyproject.toml, which is newer."""
    source = paths.content_dir() / "pyproject.toml"
    if not source.is_file():
        installed = metadata.distribution(NAME)
        return installed.read_text("METADATA") or "", installed.read_text("entry_points.txt") or ""
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    lines = ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {project['version']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    scripts = [f"{name} = {function}" for name, function in project["scripts"].items()]
    return "\n".join(lines) + "\n", "\n".join(["[console_scripts]", *scripts]) + "\n"


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise DeployctlError(f"wheels cannot be had: {told}", "is the Python package mirror reachable (pip.conf)?")
