"""Whether the image of vLLM holds code for a host's GPUs, by their compute capability."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy_cli.plan.findings import Findings
from deploy_cli.plan.shapes import KeyPath, SiteInput

LAST_OF_CUDA_12 = "0.19.0"
"""From 0.20 on the image without a suffix is of CUDA 13, which has dropped what is older than Turing (7.5)."""
CUDA_13_LEAST = (7, 5)
VLLM_LEAST = (7, 0)
IMAGE = "vllm-cuda"
_FORM = re.compile(r"(\d{1,2})\.(\d)")


def check(site: SiteInput, host: str, declared: Sequence[Mapping[str, Any]], out: Findings) -> None:
    """Refuse GPUs that the image of this host's vLLM has no code for. An image of the user's own may know them."""
    version = site.setting(host, "images_vllm_version")
    if not isinstance(version, (str, float)) or _own_image(site, host):
        return
    version = str(version).removeprefix("v")
    for path, told in _told(site, host, declared):
        capability = number(told) or CUDA_13_LEAST
        if capability < VLLM_LEAST:
            what = f"a GPU of {host} has compute capability {told}, and no release of vLLM has code for it"
            if of_cuda_13(version):
                what += f", vLLM {version} among them"
            out.add(host, path, what, "vLLM begins at 7.0 (V100): leave these GPUs out of `devices`")
        elif capability < CUDA_13_LEAST and of_cuda_13(version):
            what = f"a GPU of {host} has compute capability {told}, which the image of vLLM {version} (CUDA 13) dropped"
            hint = (
                f'set `images_vllm_version: "{LAST_OF_CUDA_12}"`, the last one of CUDA 12, as '
                "inventories/group_vars/inria_v100 does"
            )
            out.add(host, path, what, hint)


def number(told: str) -> tuple[int, int] | None:
    """A compute capability as numbers that can be compared; None for any other text."""
    found = _FORM.fullmatch(told)
    return (int(found[1]), int(found[2])) if found else None


def of_cuda_13(version: str) -> bool:
    """Whether the image with this tag is of CUDA 13; what is no number of a release is taken for a new one."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    return "cu12" not in version and (not found or (int(found[1]), int(found[2])) >= (0, 20))


def _told(site: SiteInput, host: str, declared: Sequence[Mapping[str, Any]]) -> Iterator[tuple[KeyPath, str]]:
    """Yield (path, capability): as declared, and as the driver tells it where that was left out."""
    for index, entry in enumerate(declared):
        if entry["kind"] == "nvidia" and "compute_capability" in entry:
            yield ("devices", index, "compute_capability"), str(entry["compute_capability"])
    if not any("compute_capability" in entry for entry in declared):
        for gpu in site.gpus.get(host, {}).get("gpus", []):
            if gpu.get("usable") and gpu.get("compute_capability"):
                yield ("devices",), str(gpu["compute_capability"])


def _own_image(site: SiteInput, host: str) -> bool:
    """Whether the user has named another image of vLLM for GPUs, by whatever key."""
    entries = [e for name in ("images_overrides", "images_catalogue") for e in _list(site.hosts[host].get(name))]
    named = [e for e in entries if isinstance(e, dict) and e.get("name") == IMAGE]
    return any(entry.get(key) for entry in named for key in ("reference", "digest", "id", "build"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
