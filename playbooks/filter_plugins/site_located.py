"""Planned instances where they really run; thin, see deploy_cli/status.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deploy_cli.status import located


def site_located(instances: Sequence[Mapping[str, Any]], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Filter: read what `site_engines` told of each host that answered."""
    told = [hostvars[host].get("site_engines", {}).get("instances", {}) for host in hostvars]
    return located(instances, told)


class FilterModule:
    """Ansible finds the filter here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names in playbooks."""
        return {"site_located": site_located}
