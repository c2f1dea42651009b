"""What a bundle says of itself, and whether that is what a host needs. Plain data in, problems out; no I/O.

A manifest: {format, deployctl, created, site, inventory, architecture, python,
 images: [{reference, id, created, size, digests, inputs, config, layers, layer_ids}],
 models: [{name, store_name, folder}], files: {member: {size, sha256}},
 packages: {release: {folder, names (asked for), versions {name: [version]} (of all), left_out [name]}}};
 `config`, `layers` and `folder` name members.
What a host needs: {release, architecture, kernel, packages: [name, or name=version],
 images: [{name, reference, mode, inputs, digest}], models: [{name, kind, store_name}]}, all of it only
where the host lacks it or cannot say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy_cli.errors import Problem

FORMAT = 1
NAME = "manifest.json"
PACK_AGAIN = "make the bundle again from this inventory: `deployctl bundle`"
RELEASES = {"Debian12": "bookworm", "Debian13": "trixie"}  # whose packages can be packed, with the suite
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # what the kernel says, as Debian and Docker write it


def check_shape(manifest: Any) -> None:
    """ValueError unless a manifest of our format is made as the head of this file says; others are only told apart."""
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise ValueError("it names no files")
    whole = all(
        isinstance(one, dict) and isinstance(one.get("sha256"), str) and isinstance(one.get("size"), int)
        for one in files.values()
    )
    shapes = {"site": str, "architecture": str, "images": list, "models": list, "packages": dict}
    wrong = [name for name, kind in shapes.items() if not isinstance(manifest.get(name), kind)]
    if manifest.get("format") == FORMAT and (wrong or not whole):
        raise ValueError(f"its part {wrong[0]} is not what it must be" if wrong else "its files have no checksums")


def of_another_kind(manifest: Mapping[str, Any], site: str) -> list[Problem]:
    """Say why this bundle cannot be used for a site at all: another format, another site."""
    if manifest.get("format") != FORMAT:
        what = f"the bundle has format {manifest.get('format')}, this deployctl reads format {FORMAT}"
        return [Problem(NAME, what, "use the deployctl that lies in the bundle (bootstrap.sh), or make it again")]
    if manifest["site"] != site:
        what = f"the bundle was made for site {manifest['site']}, the inventory is of site {site}"
        return [Problem(NAME, what, "take the inventory it was made from, or " + PACK_AGAIN)]
    return []


def lacks(manifest: Mapping[str, Any], host: str, needs: Mapping[str, Any]) -> list[Problem]:
    """Say everything that a host needs and the bundle does not hold."""
    found = [*_packages(manifest, host, needs), *_models(manifest, host, needs)]
    for image in needs.get("images", ()):
        found += _image(manifest, host, image)
    wanted = str(needs.get("architecture", ""))
    has = str(manifest["architecture"])
    if wanted and MACHINES.get(wanted, wanted) != has:
        found.append(Problem(host, f"the host is {wanted}, the bundle was made for {has}", "pack on a machine like it"))
    return found


def _packages(manifest: Mapping[str, Any], host: str, needs: Mapping[str, Any]) -> Iterator[Problem]:
    names = needs.get("packages") or []
    if not names:
        return
    release, held = needs["release"], manifest["packages"]
    if release not in held:
        what = f"the host runs {release} and needs packages; the bundle holds packages for {_list(held)}"
        if release in RELEASES:
            yield Problem(host, what, f"add {release} to `bundle_releases` and {PACK_AGAIN}")
        else:
            hint = (
                f"only {_list(RELEASES)} can be packed: install {', '.join(names)} on the host from a mirror of yours"
            )
            yield Problem(host, what, hint)
        return
    versions = held[release].get("versions", {})  # a bundle of an earlier deployctl has none
    there = {*held[release]["names"], *versions} | {f"{name}={one}" for name in versions for one in versions[name]}
    missing = sorted(set(names) - there)
    kernel = str(needs.get("kernel", ""))
    headers = [name for name in missing if kernel and kernel in name]
    if headers:
        what = f"the driver is built against {', '.join(headers)}, which neither the host has nor the bundle"
        hint = f"name the running kernel in `bundle_kernels: [{kernel}]` and {PACK_AGAIN}; or install it on the host"
        yield Problem(host, what, hint)
    others = [name for name in missing if name not in headers]
    if others:
        yield Problem(host, f"the bundle's packages for {release} hold no {', '.join(others)}", PACK_AGAIN)


def _models(manifest: Mapping[str, Any], host: str, needs: Mapping[str, Any]) -> Iterator[Problem]:
    held = {model["store_name"] for model in manifest["models"]}
    for model in needs.get("models", ()):
        # A path is a folder that is on the host already.
        if model["kind"] != "path" and model["store_name"] not in held:
            yield Problem(host, f"the bundle does not hold model {model['name']} ({model['store_name']})", PACK_AGAIN)


def _image(manifest: Mapping[str, Any], host: str, wanted: Mapping[str, Any]) -> Iterator[Problem]:
    held = find_image(manifest["images"], wanted["reference"])
    name = f"image {wanted['name']} ({wanted['reference']})"
    if held is None:
        yield Problem(host, f"the bundle does not hold {name}", PACK_AGAIN)
    elif held["inputs"] and (wanted["mode"] == "pull" or held["inputs"] != wanted["inputs"]):
        # Taken all the same, it would be built again by the next run without a bundle.
        yield Problem(host, f"{name} in the bundle was built from other inputs than this deployctl's", PACK_AGAIN)
    elif not held["inputs"] and wanted["mode"] == "build":
        yield Problem(host, f"{name} in the bundle was pulled, and the inventory wants it built", PACK_AGAIN)
    elif not held["inputs"] and wanted["digest"] and wanted["digest"] not in held["digests"]:
        yield Problem(host, f"{name} in the bundle does not have the digest {wanted['digest']}", PACK_AGAIN)


def find_image(images: Sequence[Mapping[str, Any]], reference: str) -> Mapping[str, Any] | None:
    """Return the bundle's image of this name."""
    return next((image for image in images if image["reference"] == reference), None)


def members_below(manifest: Mapping[str, Any], folder: str) -> list[str]:
    """Return the members in a folder of the bundle, sorted."""
    return sorted(name for name in manifest["files"] if name.startswith(folder.rstrip("/") + "/"))


def size_of(manifest: Mapping[str, Any], *names: str) -> int:
    """Return the bytes of members, or of everything below folders."""
    files = manifest["files"]
    wanted = {member for name in names for member in ([name] if name in files else members_below(manifest, name))}
    return sum(int(files[member]["size"]) for member in wanted)


def human(size: float) -> str:
    """Write bytes for people: 4.2 GB, 310.0 MB, 12 kB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _list(names: Any) -> str:
    return ", ".join(names) if names else "no system"
