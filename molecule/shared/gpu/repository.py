#!/usr/bin/python3
"""Simulated: a signed apt repository of empty packages under NVIDIA's names, for hosts that do not reach NVIDIA's own.

repository.py toolkit FOLDER VERSION...   the container toolkit, with the simulated nvidia-ctk and its service
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SERVICE = """[Unit]
Description=Refresh NVIDIA CDI specification file (simulated)
[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
"""
PATH = """[Unit]
Description=Trigger CDI refresh (simulated)
[Path]
PathChanged=/usr/bin/nvidia-ctk
[Install]
WantedBy=multi-user.target
"""


def package(folder: Path, name: str, version: str, files: dict, depends: str = "", postinst: str = "") -> None:
    """Build one package; files: {path: (text, mode)}."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        root.chmod(0o755)
        for path, (text, mode) in files.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(mode)
        (root / "DEBIAN").mkdir()
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: simulated <simulated@example.org>\n"
        )
        control += f"Depends: {depends}\n" if depends else ""
        (root / "DEBIAN/control").write_text(f"{control}Description: simulated\n")
        if postinst:
            (root / "DEBIAN/postinst").write_text(postinst)
            (root / "DEBIAN/postinst").chmod(0o755)
        words = [
            "dpkg-deb",
            "--root-owner-group",
            "-Znone",
            "--build",
            str(root),
            str(folder / f"{name}_{version}_amd64.deb"),
        ]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def index(folder: Path, home: str) -> None:
    """Write Packages and Release, signed by the key in this gpg home."""
    entries = []
    for file in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "-f", file], capture_output=True, text=True, check=True).stdout.strip()
        data = file.read_bytes()
        entries.append(
            f"{control}\nFilename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    packages = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(packages)
    told = f" {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages"
    told = f"Origin: simulated\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n{told}\n"
    (folder / "Release").write_text(told)
    words = [
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--yes",
        "--clearsign",
        "--output",
        str(folder / "InRelease"),
        str(folder / "Release"),
    ]
    subprocess.run(words, check=True, capture_output=True)


def key(target: Path, home: str) -> None:
    """Make a key and write its public half, armoured."""
    words = [
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--passphrase",
        "",
        "--quick-generate-key",
        "simulated",
        "default",
        "default",
        "never",
    ]
    subprocess.run(words, check=True, capture_output=True)
    told = subprocess.run(["gpg", "--homedir", home, "--armor", "--export"], check=True, capture_output=True).stdout
    target.write_bytes(told)


def toolkit(folder: Path, versions: list) -> None:
    """The four packages in every version."""
    for version in versions:
        program = (HERE / "nvidia-ctk").read_text().replace("@VERSION@", version)
        units = "/usr/lib/systemd/system/nvidia-cdi-refresh"
        base = {
            "/usr/bin/nvidia-ctk": (program, 0o755),
            f"{units}.service": (SERVICE, 0o644),
            f"{units}.path": (PATH, 0o644),
        }
        package(folder, "libnvidia-container1", f"{version}-1", {})
        package(folder, "libnvidia-container-tools", f"{version}-1", {}, f"libnvidia-container1 (>= {version}-1)")
        package(folder, "nvidia-container-toolkit-base", f"{version}-1", base)
        needs = f"nvidia-container-toolkit-base (= {version}-1), libnvidia-container-tools (>= {version}-1)"
        package(folder, "nvidia-container-toolkit", f"{version}-1", {}, needs)


def main() -> None:
    """Build what the first word names."""
    kind, root, *versions = sys.argv[1:]
    folder = Path(root)
    if folder.exists():
        shutil.rmtree(folder)
    with tempfile.TemporaryDirectory() as home:
        if kind == "toolkit":
            debs = folder / "stable/deb/amd64"
            debs.mkdir(parents=True)
            toolkit(debs, versions)
            key(folder / "gpgkey", home)
            index(debs, home)


if __name__ == "__main__":
    main()
