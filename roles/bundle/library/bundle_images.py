#!/usr/bin/python
"""Load images out of the parts of a bundle, sending to the engine only what it lacks."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: bundle_images
short_description: Images of a bundle in the Docker engine of a host
description:
  - C(inspected) says which images are missing and which members of the bundle the engine needs for them.
  - C(loaded) puts those members together to what C(docker load) reads; nothing is written to disk on the way.
options:
  state:
    description: Look only, or load.
    choices: [inspected, loaded]
    default: inspected
    type: str
  images:
    description: The images as the bundle's manifest describes them.
    type: list
    elements: dict
    required: true
  folder:
    description: Folder on the host where the members lie.
    type: path
    required: true
  record:
    description: File that keeps the registry digests of loaded images, which the engine does not.
    type: path
    default: ""
  progress_file:
    description: File that says how far loading is.
    type: path
    default: ""
author:
  - deployctl
"""


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the client and take what it says."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)


def inspect(*references: str) -> list[dict[str, Any]]:
    """The engine's records of the images that are there."""
    if not references:
        return []
    found: list[dict[str, Any]] = json.loads(docker("image", "inspect", *references).stdout or "[]")
    return found


def is_there(image: dict[str, Any]) -> bool:
    """Whether the engine has exactly this image.

    An engine that keeps images in containerd has ids of another kind: there layers and time of making tell it.
    """
    found = inspect(image["reference"])
    if not found:
        return False
    layers = (found[0].get("RootFS") or {}).get("Layers")
    alike = layers == image["layer_ids"] and found[0].get("Created") == image["created"]
    return bool(found[0]["Id"] == image["id"] or alike)


def known_chains() -> set[tuple[str, ...]]:
    """Every run of lowest layers that the engine has: what it can build a new image on without being sent again."""
    status = docker("info", "--format", "{{json .DriverStatus}}").stdout
    if "io.containerd" in status:
        return set()  # that engine wants all of an image
    ids = docker("image", "ls", "--all", "--quiet", "--no-trunc").stdout.split()
    layers = [(image.get("RootFS") or {}).get("Layers") or [] for image in inspect(*dict.fromkeys(ids))]
    return {tuple(chain[:length]) for chain in layers for length in range(1, len(chain) + 1)}


def wanted_members(images: list[dict[str, Any]]) -> list[str]:
    """Members that the engine needs for these images: configurations, and the layers that it lacks."""
    chains, found = known_chains(), []
    for image in images:
        found.append(image["config"])
        for number, member in enumerate(image["layers"], start=1):
            if tuple(image["layer_ids"][:number]) not in chains:
                found.append(member)
    return list(dict.fromkeys(found))


def no_room(images: list[dict[str, Any]]) -> str:
    """Why there is no room for images: the engine unpacks what it reads, and keeps both until it is done."""
    root = docker("info", "--format", "{{.DockerRootDir}}").stdout.strip()
    wanted = sum(image["size"] for image in images) + max((image["size"] for image in images), default=0)
    if not root or not Path(root).is_dir() or shutil.disk_usage(root).free >= wanted:
        return ""
    free = shutil.disk_usage(root).free
    return (
        f"{root} has {free / 1e9:.1f} GB free, {wanted / 1e9:.1f} GB are wanted to load images. Hint: free space there"
    )


def load(image: dict[str, Any], folder: Path) -> str:
    """Stream one image to the engine; why that failed, or an empty string."""
    layers = [f"{layer.split(':', 1)[1]}/layer.tar" for layer in image["layer_ids"]]
    config = Path(image["config"]).name
    described = [{"Config": config, "RepoTags": [image["reference"]], "Layers": layers}]
    process = subprocess.Popen(
        ["docker", "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
            tar.add(folder / image["config"], arcname=config)
            for inside, member in {name: image["layers"][n] for n, name in enumerate(layers)}.items():
                if (folder / member).is_file():  # what the engine has was not sent
                    tar.add(folder / member, arcname=inside)
            text = json.dumps(described).encode()
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    except BrokenPipeError:
        pass  # the engine says below why it stopped reading
    told = process.communicate()[0].decode(errors="replace").strip()
    if process.returncode == 0 and is_there(image):
        return ""
    return f"{image['reference']} could not be loaded: {told or 'the engine said nothing'}"


def remember(record: Path, images: list[dict[str, Any]]) -> None:
    """Keep the digests by which a registry knows these images: an image that was loaded has none."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known.update({image["id"]: image["digests"] for image in images if image["digests"]})
    if known:
        record.parent.mkdir(parents=True, exist_ok=True)
        scratch = record.with_suffix(".new")
        scratch.write_text(json.dumps(known, indent=1), encoding="utf-8")
        scratch.replace(record)


def main() -> None:
    """Say what is missing, or load it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["inspected", "loaded"], "default": "inspected"},
            "images": {"type": "list", "elements": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "record": {"type": "path", "default": ""},
            "progress_file": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    images = module.params["images"]
    missing = [image for image in images if not is_there(image)]
    working = module.params["state"] == "loaded" and not module.check_mode
    if not working:
        problem = no_room(missing) if missing else ""
        if problem:
            module.fail_json(msg=problem)
        references = [image["reference"] for image in missing]
        module.exit_json(changed=False, missing=references, members=wanted_members(missing))
    problems = []
    for number, image in enumerate(missing, start=1):
        if module.params["progress_file"]:
            line = f"{image['reference']}: loading, {number} of {len(missing)}"
            state = json.dumps({"pid": os.getpid(), "progress": line})
            Path(module.params["progress_file"]).write_text(state, encoding="utf-8")
        problem = load(image, Path(module.params["folder"]))
        problems += [problem] if problem else []
    if module.params["record"]:
        remember(Path(module.params["record"]), images)
    if problems:
        module.fail_json(msg="; ".join(problems))
    module.exit_json(changed=bool(missing), missing=[], members=[])


if __name__ == "__main__":
    main()
