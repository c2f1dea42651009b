"""Which instance runs on which devices.

Fixed numbers of replicas come first, the largest first, then the one model with `replicas: max` takes what is left.
What runs already (`current`) keeps its place wherever that is still valid, so adding or
removing a model moves no other. What comes new takes free devices before those of an instance that leaves: then both
can be there at once, and nobody waits.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from deploy_cli.plan import memory, naming
from deploy_cli.plan.shapes import Device, Model, Placed
from deploy_cli.plan.wording import listing

Spot = tuple[Device, ...]
MOST_COMBINED = 16
"""Equal devices of a host up to which every set is weighed: 12,870 sets of eight."""


@dataclass(frozen=True)
class Seat:
    """One instance of a model and the devices it got."""

    model: Model
    replica: int
    devices: Spot

    @property
    def name(self) -> str:
        """The instance's name."""
        return naming.instance(self.model.name, self.replica)

    @property
    def host(self) -> str:
        """The host of its devices."""
        return self.devices[0].host


@dataclass(frozen=True)
class Misfit:
    """A model that does not fit; `key` is the key of its entry to point at."""

    model: Model
    key: str
    what: str
    hint: str


class Floor:
    """The devices of a site and who sits on them."""

    def __init__(
        self, devices: Sequence[Device], current: Mapping[str, Placed], links: Mapping[frozenset[str], int]
    ) -> None:
        """Begin with every device free; `current`: what runs now, by instance name; `links`: ranks by two UUIDs."""
        self.links = links
        self.devices = list(devices)
        self.current = current
        self.order = {device: place for place, device in enumerate(devices)}
        self.free = dict.fromkeys(devices, memory.WHOLE)
        self.seats: list[Seat] = []
        self.reluctance: dict[Device, int] = {}
        self.vacated: set[Device] = set()

    def vacate(self, models: Sequence[Model]) -> None:
        """Learn which devices instances sit on that no model of these has any more."""
        most = len(self.devices) + max((m.replicas or 0 for m in models), default=0)
        known = {naming.instance(m.name, n) for m in models for n in range(most)}
        places = {
            (placed.host, place)
            for name, placed in self.current.items()
            if name not in known
            for place in placed.devices
        }
        self.vacated = {d for d in self.devices if (d.host, d.uuid or d.index) in places}

    def kept(self, model: Model, replica: int) -> Spot | None:
        """The devices this instance has now, if they still exist, still suffice and nobody else took them."""
        placed = self.current.get(naming.instance(model.name, replica))
        if placed is None or len(placed.devices) != model.tensor_parallel:
            return None
        for kind in ("nvidia", "cpu"):
            here = [d for d in self.devices if d.host == placed.host and d.kind == kind]
            # By UUID where it is known: a GPU that fell off the bus shifts the indices of the others.
            known: dict[int | str, Device] = {d.uuid or d.index: d for d in here}
            spot = tuple(known[i] for i in placed.devices if i in known)
            if len(spot) == model.tensor_parallel and self._takes(model, spot):
                return spot
        return None

    def best(self, model: Model) -> Spot | None:
        """The best free devices for one more instance: hosts without this model first, then the emptiest."""
        spots = [spot for spot in self._spots(model) if self._takes(model, spot)]
        same = Counter(seat.host for seat in self.seats if seat.model.name == model.name)
        free: dict[str, float] = {}
        for device, share in self.free.items():
            free[device.host] = free.get(device.host, 0) + share

        def cost(spot: Spot) -> tuple[float, ...]:
            first = spot[0]
            worst, total, nodes = self._connection(spot)
            crooked = first.index % model.tensor_parallel != 0  # GPUs 0+1 and 2+3 are the linked pairs
            emptiest = min(self.free[d] for d in spot)
            held = sum(self.reluctance.get(d, 0) for d in spot)
            near = (-worst, -total, nodes)
            vacated = any(d in self.vacated for d in spot)
            return (held, same[first.host], vacated, -free[first.host], *near, crooked, -emptiest, self.order[first])

        return min(spots, key=cost, default=None)

    def sit(self, model: Model, replica: int, spot: Spot) -> None:
        """Give an instance its devices."""
        for device in spot:
            self.free[device] -= memory.need(model, device.kind)
        self.seats.append(Seat(model, replica, spot))

    def stand_up(self, seat: Seat) -> None:
        """Take an instance's devices back."""
        for device in seat.devices:
            self.free[device] += memory.need(seat.model, device.kind)
        self.seats.remove(seat)

    def _takes(self, model: Model, spot: Spot) -> bool:
        return all(memory.fits(self.free[d], memory.need(model, d.kind)) for d in spot)

    def _connection(self, spot: Spot) -> tuple[int, int, int]:
        """Rank of the worst link between the devices, sum of all ranks, number of NUMA nodes."""
        ranks = [self.links.get(frozenset((a.uuid, b.uuid)), 0) for a, b in combinations(spot, 2)]
        return min(ranks, default=0), sum(ranks), len({d.numa_node for d in spot})

    def _spots(self, model: Model) -> Iterator[Spot]:
        """Every set of as many equal devices of a host as the model spans; neighbours only where no link is known."""
        span = model.tensor_parallel
        equal: dict[tuple[str, str, str], list[Device]] = {}
        for device in self.devices:
            equal.setdefault((device.host, device.kind, device.model), []).append(device)
        for among in equal.values():
            if span > 1 and self.links and len(among) <= MOST_COMBINED:
                yield from combinations(among, span)
            else:
                yield from (tuple(among[start : start + span]) for start in range(len(among) - span + 1))


def place(
    models: Sequence[Model],
    devices: Sequence[Device],
    current: Mapping[str, Placed],
    links: Mapping[frozenset[str], int] | None = None,
) -> tuple[list[Seat], list[Misfit]]:
    """Seat every instance, or say which models do not fit and who has the devices. Seats are in the models' order."""
    floor = Floor(devices, current, links or {})
    floor.vacate(models)
    misfits: list[Misfit] = []
    fixed = [m for m in models if m.replicas is not None]
    greedy = [m for m in models if m.replicas is None]
    misfits += [bad for m in fixed if (bad := _too_wide(m, floor))]
    placeable = [m for m in fixed if not any(bad.model is m for bad in misfits)]
    for model in placeable:
        for replica in range(model.replicas or 0):
            if spot := floor.kept(model, replica):
                floor.sit(model, replica, spot)
    _hold_back(floor, greedy)
    for model in sorted(placeable, key=lambda m: (-m.tensor_parallel, -(m.memory_share or memory.WHOLE), m.position)):
        _fill(floor, model)
    for model in placeable:
        seated = sum(s.model.name == model.name for s in floor.seats)
        if seated < (model.replicas or 0):
            misfits.append(_overflow(model, seated, floor))
    for model in greedy[:1]:
        if bad := _too_wide(model, floor):
            misfits.append(bad)
        elif not _fill_up(floor, model):
            left, smaller = _shares(floor, model)
            what = f"model `{model.name}` wants every device that is left, and none is: {_usage(floor, model)}{left}"
            hint = f"{smaller}take replicas from another model, or declare more devices"
            misfits.append(Misfit(model, "replicas", what, hint))
    for model in greedy[1:]:
        what = f"both `{greedy[0].name}` and `{model.name}` have `replicas: max`"
        misfits.append(Misfit(model, "replicas", what, "only one can take what is left; give the others a number"))
    floor.seats.sort(key=lambda s: (s.model.position, s.replica))
    return floor.seats, misfits


def _fill(floor: Floor, model: Model) -> None:
    seated = {s.replica for s in floor.seats if s.model.name == model.name}
    for replica in range(model.replicas or 0):
        if replica not in seated and (spot := floor.best(model)):
            floor.sit(model, replica, spot)


def _hold_back(floor: Floor, greedy: Sequence[Model]) -> None:
    """Make others take the devices of a `max` model last, and those of its highest numbers first."""
    for model in greedy[:1]:
        running = 0
        while spot := floor.kept(model, running):
            for device in spot:
                floor.reluctance[device] = -running
            running += 1
        for device in floor.reluctance:
            floor.reluctance[device] += running + 1


def _fill_up(floor: Floor, model: Model) -> int:
    """Seat a `max` model on all that is left; numbers stay without a gap. Returns how many instances sit."""
    running = 0
    for replica in range(len(floor.devices)):
        if spot := floor.kept(model, replica):
            floor.sit(model, replica, spot)
    while True:
        mine = {s.replica: s for s in floor.seats if s.model.name == model.name}
        if running not in mine:
            spot = floor.best(model)
            if spot is None and mine and max(mine) > running:
                last = mine[max(mine)]
                floor.stand_up(last)
                spot = last.devices
            if spot is None:
                return running
            floor.sit(model, running, spot)
        running += 1


def _too_wide(model: Model, floor: Floor) -> Misfit | None:
    if any(floor._spots(model)):
        return None
    sizes = Counter((device.host, device.kind, device.model) for device in floor.devices)
    (host, kind, product), size = max(sizes.items(), key=lambda item: item[1])
    what = (
        f"model `{model.name}` spans {model.tensor_parallel} devices, but no host holds as many that are equal; "
        f"the largest, {host}, holds {size} {product or kind}"
    )
    return Misfit(model, "tensor_parallel", what, f"set `tensor_parallel` to {size} or less")


def _overflow(model: Model, seated: int, floor: Floor) -> Misfit:
    each = f" of {model.tensor_parallel} devices each" if model.tensor_parallel > 1 else ""
    share = f" with {model.memory_share:g} of a device's memory each" if model.memory_share is not None else ""
    wanted = "1 replica" if model.replicas == 1 else f"{model.replicas} replicas"
    fit = "none fits" if not seated else "1 fits" if seated == 1 else f"{seated} fit"
    left, smaller = _shares(floor, model)
    what = f"model `{model.name}` wants {wanted}{each}{share}, and {fit}: {_usage(floor, model)}{left}"
    fewer = f"set `replicas: {seated}` or `replicas: max`" if seated else "remove the entry"
    others = [m for m in dict.fromkeys(s.model.name for s in floor.seats) if m != model.name]
    take = f", take replicas from {listing(others)}" if others else ""
    return Misfit(model, "replicas", what, f"{smaller}{fewer}{take}, or declare more devices")


def _shares(floor: Floor, model: Model) -> tuple[str, str]:
    """What of a GPU's memory is left at most, and how more could sit on one; both empty where nobody shares any."""
    seated = {s.model.name: s.model for s in floor.seats if s.devices[0].kind == "nvidia"}
    free = [share for device, share in floor.free.items() if device.kind == "nvidia"]
    shared = any(other.memory_share is not None for other in seated.values())
    if not free or not (shared or model.memory_share is not None):
        return "", ""
    left = round(max(free), 2)
    whole = [name for name, other in (seated | {model.name: model}).items() if other.memory_share is None]
    hints = ["lower `memory_share`"] if shared and (model.memory_share is not None or not left) else []
    hints += [f"give {listing(whole)} a `memory_share`"] if whole else []
    # What wants a GPU for itself needs a share and, where nothing is left, the others' to be smaller as well.
    said = (" or " if model.memory_share is not None else " and ").join(hints)
    return f"; at most {left:g} of a GPU's memory is free", f"{said}, " if said else ""


def _usage(floor: Floor, model: Model) -> str:
    """Say how many devices each host holds and which other models sit on them."""
    parts = []
    for host, kind in dict.fromkeys((d.host, d.kind) for d in floor.devices):
        held = sum((d.host, d.kind) == (host, kind) for d in floor.devices)
        takers: dict[str, set[int]] = {}
        for seat in floor.seats:
            if (seat.host, seat.devices[0].kind) == (host, kind) and seat.model.name != model.name:
                takers.setdefault(seat.model.name, set()).update(d.index for d in seat.devices)
        said = ", ".join(f"`{name}` takes {len(taken)}" for name, taken in takers.items())
        parts.append(f"{host} holds {held} {kind}" + (f" ({said})" if said else ""))
    return "; ".join(parts)
