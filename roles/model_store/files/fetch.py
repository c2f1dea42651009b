"""Fill one folder of the model store; runs inside the vLLM image, which holds the libraries for it.

Reads a JSON request on standard input, keeps a progress file, and writes the model complete or not at all: files are
fetched into `<name>.partial` (where a broken download goes on), checked, and renamed.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

MANIFEST = ".deployctl.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """The name git gives a file's content: what a hub states for files that are not in large-file storage."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """Every file of the model; the hub library's bookkeeping and our manifest are not."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and ".cache" not in p.relative_to(folder).parts and p.name != MANIFEST
    )


def watch(folder: Path, total: int, progress: Path, name: str) -> None:
    """Write how many bytes are there, every second, while the main thread works."""
    begun = time.time()
    while True:
        there = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
        say(progress, f"{name}: {there / 1e6:.1f} of {total / 1e6:.1f} MB, {time.time() - begun:.0f} s")
        time.sleep(1)


def say(progress: Path, text: str) -> None:
    """Replace the progress line, and keep the process number that stands beside it: the waiting side watches it."""
    scratch = progress.with_suffix(".new")
    scratch.write_text(
        json.dumps({**json.loads(progress.read_text(encoding="utf-8")), "progress": text}), encoding="utf-8"
    )
    scratch.replace(progress)


def from_hub(request: dict[str, Any], partial: Path, progress: Path) -> str:
    """Download a pinned revision, check every file against what the hub states; returns the commit."""
    from huggingface_hub import HfApi, hf_hub_download

    token_file = Path("/run/secrets/hub_token")
    token = token_file.read_text(encoding="utf-8").strip() if token_file.exists() else False
    endpoint = request.get("hub_url") or None
    info = HfApi(endpoint=endpoint, token=token or False).model_info(
        request["source"], revision=request["revision"], files_metadata=True
    )
    stated = {s.rfilename: s for s in info.siblings or []}
    wanted = {
        n: s
        for n, s in stated.items()
        if not n.endswith((".bin", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"))
        or not any(x.endswith(".safetensors") for x in stated)
    }
    total = sum(s.size or 0 for s in wanted.values())
    free = shutil.disk_usage(partial.parent).free
    there = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file()) if partial.exists() else 0
    if total - there > free:
        raise SystemExit(
            f"{request['source']} needs {(total - there) / 1e9:.1f} GB more, the store has {free / 1e9:.1f} GB free"
        )
    threading.Thread(target=watch, args=(partial, total, progress, request["name"]), daemon=True).start()
    # File by file, because a mirror may not serve the tree that a whole snapshot asks for. Each one resumes by itself.
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        jobs = [
            pool.submit(
                hf_hub_download,
                request["source"],
                name,
                revision=info.sha,
                local_dir=partial,
                endpoint=endpoint,
                token=token or False,
            )
            for name in wanted
        ]
        for job in jobs:
            job.result()
    for name, sibling in wanted.items():
        path = partial / name
        if sibling.lfs is not None:
            good = sha256(path) == sibling.lfs.sha256
        else:
            good = sibling.blob_id is None or git_blob_sha1(path) == sibling.blob_id
        if not good:
            # A wrong file would be taken for a finished one by the next run.
            path.unlink()
            raise SystemExit(
                f"{request['source']}: {name} does not have the checksum that the hub states; it was deleted, run again"
            )
    return str(info.sha)


def main() -> None:
    """Serve one request: {name, kind, source, preset, revision, store_name, seed, hub_url, progress}."""
    request = json.load(sys.stdin)
    store = Path("/store")
    target, partial = store / request["store_name"], store / f"{request['store_name']}.partial"
    progress = Path(request["progress"])
    revision = request.get("revision")
    say(progress, f"{request['name']}: starting")
    if request["kind"] == "synthetic":
        from synthesize import synthesize

        shutil.rmtree(partial, ignore_errors=True)
        say(progress, f"{request['name']}: making synthetic weights")
        synthesize(request["preset"], int(request["seed"]), partial)
    elif request["kind"] == "hub":
        revision = from_hub(request, partial, progress)
    else:
        size = sum(p.stat().st_size for p in model_files(Path("/source")))
        threading.Thread(target=watch, args=(partial, size, progress, request["name"]), daemon=True).start()
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree("/source", partial, symlinks=False)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    say(progress, f"{request['name']}: checksums")
    files = {str(p.relative_to(partial)): {"size": p.stat().st_size, "sha256": sha256(p)} for p in model_files(partial)}
    if "config.json" not in files:
        raise SystemExit(f"{request['source']} holds no config.json: that is not a model vLLM can load")
    for path in [partial, *partial.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    manifest = {"source": request["source"], "revision": revision, "files": files}
    if request["kind"] == "synthetic":
        manifest["seed"] = request["seed"]
        manifest["recipe"] = sha256(Path("/tools/synthesize.py"))
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    if target.exists():
        broken = store / f"{request['store_name']}.replaced-{os.getpid()}"
        target.rename(broken)
        partial.rename(target)
        shutil.rmtree(broken)
    else:
        partial.rename(target)


if __name__ == "__main__":
    main()
