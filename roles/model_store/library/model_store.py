#!/usr/bin/python
"""Keep models complete in a folder of the host."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: model_store
short_description: Model files on a host, complete and with verified checksums
description:
  - C(inspected) compares each model's folder with its manifest; C(present) fetches what is missing or broken.
  - Fetching runs in a one-shot container of the vLLM image without capabilities; only the store is writable for it.
options:
  state:
    description: Look only, or fetch.
    choices: [inspected, present]
    default: present
    type: str
  settings:
    description: The models and where they come from, see the role's argument_specs.
    type: dict
    required: true
  hub_token:
    description: Access token of the hub.
    type: str
    default: ""
author:
  - deployctl
"""

MANIFEST = ".deployctl.json"


def what_is_wrong(folder: Path, verify: str, made_as: dict[str, Any]) -> str:
    """Why a model's folder is not complete; an empty string when it is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "not there"
    except (OSError, ValueError) as error:
        return f"manifest not readable: {error}"
    if any(manifest.get(key) != value for key, value in made_as.items()):
        return "made with another seed or recipe"
    for name, stated in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != stated["size"]:
            return f"{name} has {path.stat().st_size} bytes, not {stated['size']}"
        if verify == "checksum":
            digest = hashlib.sha256()
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 22), b""):
                    digest.update(block)
            if digest.hexdigest() != stated["sha256"]:
                return f"{name} does not have its checksum"
    return ""


def made_as(settings: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """What the manifest of a synthetic model must say of its making; nothing for models from elsewhere."""
    recipe = Path(settings["tools"]) / "synthesize.py"
    if model["kind"] != "synthetic" or not recipe.exists():
        return {}
    return {"seed": settings["seed"], "recipe": hashlib.sha256(recipe.read_bytes()).hexdigest()}


def manifest_id(folder: Path) -> str:
    """A short name for exactly these files: the hash of the manifest."""
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def fetch(settings: dict[str, Any], model: dict[str, Any], token: str) -> None:
    """Run the fetching container for one model; raises RuntimeError with the end of its output."""
    store = Path(settings["dir"])
    command = [
        "docker", "run", "--rm", "-i", "--network", "host", "--user", "0:0", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--entrypoint", "python3",
        "--label", "deployctl.role=model_store",
        "-e", "HF_HUB_DISABLE_TELEMETRY=1", "-e", "HF_HUB_DISABLE_PROGRESS_BARS=1", "-e", "HF_HOME=/tmp/hf",
        "-e", "HF_HUB_DISABLE_XET=1",
        "-v", f"{store}:/store", "-v", f"{settings['tools']}:/tools:ro",
    ]  # fmt: skip
    proxies = {
        k: v for k, v in os.environ.items() if k.lower() in ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    }
    for key, value in {**proxies, **(settings.get("proxy_env") or {})}.items():
        command += ["-e", f"{key}={value}"]
    candidates = (settings.get("ca_file"), os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
    bundle = next((c for c in candidates if c and Path(c).is_file()), None)
    if bundle:
        command += ["-v", f"{Path(bundle).resolve()}:/run/ca.pem:ro"]
        command += ["-e", "SSL_CERT_FILE=/run/ca.pem", "-e", "REQUESTS_CA_BUNDLE=/run/ca.pem"]
    if model["kind"] == "path":
        command += ["-v", f"{model['source']}:/source:ro"]
    with tempfile.NamedTemporaryFile("w", prefix=".token-", dir=settings["tools"]) as secret:
        Path(secret.name).chmod(0o600)
        secret.write(token)
        secret.flush()
        if token:
            command += ["-v", f"{secret.name}:/run/secrets/hub_token:ro"]
        request = {
            **model,
            "seed": settings["seed"],
            "hub_url": settings.get("hub_url"),
            "progress": "/store/.tools/progress.json",
        }
        command += [settings["image"], "/tools/fetch.py"]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        hint = {
            "hub": "is the hub reachable from this host (model_store_hub_url, proxies), is the revision right, "
            "is the model gated (model_store_hub_token)?",
            "path": "does the folder hold a complete model on this host?",
        }.get(model["kind"], "does the vLLM image run on this host?")
        raise RuntimeError(f"{model['name']}: {tail}. Hint: {hint}")


def main() -> None:
    """Inspect all; fetch what is not complete; report each model's state."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["inspected", "present"], "default": "present"},
            "settings": {"type": "dict", "required": True},
            "hub_token": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    settings, models = module.params["settings"], module.params["settings"]["models"]
    store = Path(settings["dir"])
    wrong = {
        m["name"]: what_is_wrong(store / m["store_name"], settings["verify"], made_as(settings, m)) for m in models
    }
    missing = [name for name, why in wrong.items() if why]
    changed = False
    if module.params["state"] == "present" and not module.check_mode:
        (Path(settings["tools"]) / "progress.json").write_text(
            json.dumps({"pid": os.getpid(), "progress": "starting"}), encoding="utf-8"
        )
        problems = []
        done: set[str] = set()
        for model in (m for m in models if m["name"] in missing):
            if model["store_name"] in done:
                continue
            done.add(model["store_name"])
            try:
                fetch(settings, model, module.params["hub_token"])
                changed = True
            except (RuntimeError, OSError) as error:
                problems.append(str(error))
        if problems:
            module.fail_json(msg="; ".join(problems), missing=missing)
    states = {
        m["name"]: {
            "folder": str(store / m["store_name"]),
            "id": manifest_id(store / m["store_name"]),
            "problem": wrong[m["name"]],
        }
        for m in models
    }
    module.exit_json(changed=changed, models=states, missing=missing)


if __name__ == "__main__":
    main()
