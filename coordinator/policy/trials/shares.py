"""How an experiment divides instances and requests between its arms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from coordinator.policy.books import InstanceBook
from coordinator.policy.seat import Arm

_DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TrialWish:
    """A policy set to try, and the share of the instances that it is to have.

    Raises ValueError for a share that leaves one arm nothing.
    """

    policy: str
    share: float = _DEFAULT_SHARE

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: {self.share:g} is not between 0 and 1")


def parse_wish(words: str) -> TrialWish:
    """ "coupled:0.5", or the set alone for a half. Raises ValueError naming the option."""
    policy, _, share = words.rpartition(":")
    try:
        return TrialWish(policy, float(share)) if policy else TrialWish(words)
    except ValueError as error:
        if not share.replace(".", "").isdigit():  # the set's own colon, as in static:equal
            return TrialWish(words)
        raise ValueError(f"ab: {error}") from None


def chosen_for_b(instances: Iterable[InstanceBook], share: float) -> set[str]:
    """Of two instances at least, those that B gets: of each kind its share, as near as whole ones allow.

    Both arms get one at least. Rounded by largest remainders (Hamilton), ties in order of kinds.
    """
    kinds: dict[str, list[str]] = {}
    for book in sorted(instances, key=lambda book: book.instance_id):
        kinds.setdefault(_kind(book), []).append(book.instance_id)
    total = sum(map(len, kinds.values()))
    wanted = min(total - 1, max(1, round(share * total)))
    exact = {kind: wanted * len(names) / total for kind, names in sorted(kinds.items())}
    counts = {kind: int(number) for kind, number in exact.items()}
    by_rest = sorted(exact, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_rest[: wanted - sum(counts.values())]:
        counts[kind] += 1
    return {name for kind, names in kinds.items() for name in names[len(names) - counts[kind] :]}


def arm_of_newcomer(num_a: int, num_b: int, share: float) -> Arm:
    """Whichever is further below its share with one more."""
    return Arm.B if num_b + 0.5 < share * (num_a + num_b + 1) else Arm.A


def home_of(experiment: str, key: bytes, share: float) -> Arm:
    """The same for the same key, whenever it is asked; B for its share of all keys.

    A larger share moves keys to B only, a smaller one to A only.
    """
    digest = sha256(experiment.encode() + b"\0" + key).digest()
    return Arm.B if int.from_bytes(digest[:8], "big") < share * 2**64 else Arm.A


def _kind(book: InstanceBook) -> str:
    return f"{book.group.value}:{''.join(sorted(stage.value for stage in book.roles))}"
