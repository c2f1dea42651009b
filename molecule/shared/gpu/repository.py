#!/usr/bin/python3
"""Simulated: a signed apt repository of empty packages under NVIDIA's names, for hosts that do not reach NVIDIA's own.

repository.py toolkit FOLDER VERSION...   the container toolkit, with the simulated nvidia-ctk and its service
repository.py driver FOLDER VERSION...    a driver for Debian 13: pinning packages, modules for DKMS, fabric managers
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


LIST = (
    "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] https://repository.example.org/debian13/x86_64/ /\n"
)
PIN = "Package: nvidia-* libnvidia-* cuda-drivers*\nPin: version {branch}.*\nPin-Priority: 1000\n"
DKMS = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
AUTOINSTALL=yes
MAKE[0]="make -C /lib/modules/${{kernelver}}/build M=/var/lib/dkms/nvidia/{version}/build modules"
CLEAN="true"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
"""
# As vendors ship it: the daemon runs, and lets the GPUs go.
PERSISTENCED = """[Unit]
Description=NVIDIA Persistence Daemon (simulated)
[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=/usr/bin/nvidia-persistenced --user nvidia-persistenced --no-persistence-mode --verbose
[Install]
WantedBy=multi-user.target
"""
FABRIC = """[Unit]
Description=NVIDIA fabric manager (simulated)
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""


def package(
    folder: Path, name: str, version: str, files: dict, depends: str = "", postinst: str = "", more: str = ""
) -> None:
    """Build one package; files: {path: (text, mode)}."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        root.chmod(0o755)
        for path, (text, mode) in files.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("latin-1"))
            file.chmod(mode)
        (root / "DEBIAN").mkdir()
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: simulated <simulated@example.org>\n"
        )
        control += f"Depends: {depends}\n" if depends else ""
        (root / "DEBIAN/control").write_text(f"{control}{more}Description: simulated\n")
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


def driver(folder: Path, versions: list, keyring: bytes) -> None:
    """The driver in every version; as in NVIDIA's own repository, a package asks for `this version or a newer one`."""
    units = "/usr/lib/systemd/system"
    for version in versions:
        release, branch = f"{version}-1", version.split(".", maxsplit=1)[0]
        fabric = {f"{units}/nvidia-fabricmanager.service": (FABRIC, 0o644)}
        # One more that is newer than its driver: not the newest is right, but the driver's own.
        for number in (release, f"{branch}.999.01-1"):
            # From 580 on the name with the branch is a virtual one, and apt finds no version of it.
            name, virtual = f"nvidia-fabricmanager-{branch}", ""
            if int(branch) >= 580:
                name, virtual = "nvidia-fabricmanager", f", {name}"
            more = f"Conflicts: fabric\nReplaces: fabric\nProvides: fabric{virtual}\n"
            package(folder, name, number, fabric, more=more)
        pin = {f"/etc/apt/preferences.d/nvidia-driver-pinning-{branch}": (PIN.format(branch=branch), 0o644)}
        package(folder, f"nvidia-driver-pinning-{branch}", f"{branch}-1", pin)
        library = f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}"
        link = f"#!/bin/sh\nln -sf {library} /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1\n"
        package(folder, "libnvidia-ml1", release, {library: ("", 0o644)}, postinst=link)
        home = f"/usr/src/nvidia-{version}"
        source = {f"{home}/dkms.conf": (DKMS.format(version=version), 0o644), f"{home}/nvidia.c": ("", 0o644)}
        build = f"#!/bin/sh\nexec dkms install --force nvidia/{version}\n"
        package(folder, "nvidia-kernel-open-dkms", release, source, "dkms", build)
        programs = {f"/usr/bin/{name}": ("#!/bin/sh\n", 0o755) for name in ("nvidia-smi", "nvidia-persistenced")}
        units_here = {f"{units}/nvidia-persistenced.service": (PERSISTENCED, 0o644)}
        package(folder, "nvidia-driver-cuda", release, {"/usr/bin/nvidia-smi": programs["/usr/bin/nvidia-smi"]})
        daemon = {"/usr/bin/nvidia-persistenced": programs["/usr/bin/nvidia-persistenced"], **units_here}
        package(folder, "nvidia-persistenced", release, daemon)
        needs = [
            f"{name} (>= {release})" for name in ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libnvidia-ml1")
        ]
        package(folder, "nvidia-open", release, {}, ", ".join(needs))
    files = {"/etc/apt/sources.list.d/cuda-debian13-x86_64.list": (LIST, 0o644)}
    copied = {"/usr/share/keyrings/cuda-archive-keyring.gpg": (keyring.decode("latin-1"), 0o644)}
    package(folder, "cuda-keyring", "1.1-1", {**files, **copied})
    (folder / "cuda-keyring_1.1-1_amd64.deb").rename(folder / "cuda-keyring_1.1-1_all.deb")


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
        if kind == "driver":
            debs = folder / "debian13/x86_64"
            debs.mkdir(parents=True)
            key(folder / "gpgkey", home)
            told = subprocess.run(["gpg", "--homedir", home, "--export"], check=True, capture_output=True).stdout
            driver(debs, versions, told)
            index(debs, home)


if __name__ == "__main__":
    main()
