"""What goes into the planner and what comes out, as plain data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy_cli.errors import Problem

GROUPS = ("serving", "gateway", "telemetry")
"""The three groups every site has, children of the site's own group."""

KeyPath = tuple[str | int, ...]
"""Place of a value below a host's variables, e.g. `("models", 0, "replicas")`."""


@dataclass(frozen=True)
class Unresolved:
    """Stands where a template could not be rendered; `reason` never holds a value, `facts`: it only waits for facts."""

    reason: str
    facts: bool = False


@dataclass(frozen=True)
class Placed:
    """Where an instance runs: host, its devices there (UUIDs, or indices), TCP port (None: not known)."""

    host: str
    devices: tuple[int | str, ...]
    port: int | None = None


@dataclass(frozen=True)
class SiteInput:
    """All that the planner may know. Everything is read beforehand; the planner itself opens nothing."""

    inventory: str
    site: str
    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Mapping[str, Any]]
    """Variables the user set, rendered, by host (no facts, no role defaults)."""
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The groups right above each of the three, `all` left out; a group that is not in it was not asked about."""
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each role's argument spec."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Role defaults that the planner reads, rendered."""
    nullable: frozenset[str] = frozenset()
    """Role variables whose default is null: then null is a value that the user may write, too."""
    filled: frozenset[str] = frozenset()
    """Role variables whose default is a text: then an empty text is none that the role could use as a path."""
    origin: Callable[[str, KeyPath], str | None] = lambda host, path: None
    """`file:line` of a host's value, or None."""
    exists: Callable[[str], bool] = lambda path: True
    """Whether a path exists on the control node; true where that may not be looked at."""
    is_folder: Callable[[str], bool] = lambda path: False
    """Whether a path is a folder on the control node."""
    base: str = ""
    """Absolute folder that relative paths of the inventory begin at: the inventory's own."""
    problems: Sequence[Problem] = ()
    """What was already found while the inventory's files were read."""
    unreadable: bool = False
    """Whether one of the files is no YAML: then nothing else can be judged."""
    current: Mapping[str, Placed] = field(default_factory=dict)
    """What runs now, by instance name; kept wherever it is still valid."""
    vouched: bool = False
    """Whether the user's variables were already checked: tasks that ran since have added some of their own."""
    gpus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the module gpu_facts read, by host; hosts that were not looked at are planned as declared."""

    def where(self, host: str, *path: str | int) -> str:
        """Name the place of a value: `file:line`, of it or of the nearest thing around it, else host/key path."""
        for length in range(len(path), 0, -1):
            found = self.origin(host, path[:length])
            if found:
                return found
        dotted = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        return f"{host}/{dotted}" if dotted else self.inventory

    def setting(self, host: str, name: str) -> Any:
        """A role variable as this host sees it: the user's value, else the role's default, else None."""
        return self.hosts.get(host, {}).get(name, self.defaults.get(name))


@dataclass(frozen=True)
class Device:
    """One thing an engine can run on: a GPU, or one engine's share of a CPU machine. Indices count per kind."""

    host: str
    kind: str
    index: int
    model: str = ""
    memory_gib: float | None = None
    uuid: str = ""
    numa_node: int | None = None
    cpus: str | None = None
    """CPUs of its NUMA node, such as `0-23`."""


@dataclass(frozen=True)
class Model:
    """One entry of `models`, with all that was left out filled in. `replicas` is None for `max` until it is placed."""

    name: str
    pool: str
    source: str
    kind: str
    preset: str | None
    revision: str | None
    store_name: str
    aliases: tuple[str, ...]
    replicas: int | None
    tensor_parallel: int
    context_length: int | None
    memory_share: float | None
    tool_call_parser: str | None
    chat_template: str | None
    dtype: str | None
    port: int | None
    engine_args: tuple[str, ...]
    env: Mapping[str, str]
    position: int

    @property
    def served_names(self) -> list[str]:
        """Every name a client may send."""
        return [self.name, *self.aliases]


@dataclass(frozen=True)
class Instance:
    """One engine: a container on a host, with its devices, port and what it serves."""

    name: str
    container: str
    model: str
    pool: str
    host: str
    device_kind: str
    devices: list[int]
    device_uuids: list[str]
    cpus: str | None
    numa_nodes: list[int]
    tensor_parallel: int
    port: int
    address: str
    publish_address: str
    served_names: list[str]
    store_name: str
    chat_template: str | None
    engine_args: list[str]
    env: dict[str, str]
    start_after: str | None


@dataclass(frozen=True)
class Plan:
    """What runs where. `as_dict()` is the content of plan.json."""

    site: str
    inventory: str
    models: list[dict[str, Any]]
    instances: list[Instance]
    gateway: dict[str, Any]
    telemetry: dict[str, Any]
    hosts: dict[str, Any]
    warnings: list[Problem]
    version: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON data."""
        data = asdict(self)
        data["warnings"] = [{"where": w.where, "what": w.what, "hint": w.hint} for w in self.warnings]
        return {"version": data.pop("version"), **data}
