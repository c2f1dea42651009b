"""One digest of all that decides what a site should be: the inventory's values, and this checkout's own content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from deploy_cli.plan.shapes import Plan, SiteInput

CONTENT = ("playbooks", "roles", "deploy_cli", "templates")


def content_digest(root: Path) -> str:
    """Digest of the playbooks, roles and code under a checkout. A change of any of them may change what a host gets."""
    found = hashlib.sha256()
    for folder in CONTENT:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def inputs_digest(site: SiteInput, plan: Plan, content: str) -> str:
    """Digest of the site's variables (secrets among them, so only their digest leaves), groups, plan and content."""
    told = {
        "hosts": site.hosts,
        "groups": {name: list(hosts) for name, hosts in site.groups.items()},
        "plan": {key: value for key, value in plan.as_dict().items() if key not in ("inventory", "warnings")},
        "content": content,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
