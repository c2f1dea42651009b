"""Shows the acceptance's pure functions to the role's templates."""

from collections.abc import Callable
from typing import Any

from deploy_cli.bench import suites


class FilterModule:
    """Filters named after what they give."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function, as Ansible asks for them."""
        return {
            "acceptance_targets": suites.targets,
            "acceptance_loads": suites.loads,
            "acceptance_images": suites.images,
            "acceptance_bench_arguments": suites.bench_arguments,
        }
