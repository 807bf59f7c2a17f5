"""Forms of a cluster: how many instances play which roles, for one group or for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from math import floor
from typing import NamedTuple

from coordinator.policy.plan import Assignment
from core.stages import COUPLED, ModalityGroup, Roles, Stage, roles_name

E, P, D = (frozenset((stage,)) for stage in Stage)
PD: Roles = P | D
EP: Roles = E | P
ED: Roles = E | D


class Pool(NamedTuple):
    """Equal instances."""

    roles: Roles
    size: int

    def __str__(self) -> str:
        return f"{self.size}{roles_name(self.roles).upper()}"


Form = tuple[Pool, ...]  # every stage is played by at most one of its pools
Forms = Mapping[ModalityGroup, Form]  # {SHARED: …}, or one form per group

_STAGES = tuple(Stage)
# Which stages share instances.
MEDIA_SHARING: tuple[tuple[Roles, ...], ...] = ((COUPLED,), (EP, D), (E, PD), (ED, P), (E, P, D))
TEXT_SHARING: tuple[tuple[Roles, ...], ...] = ((PD,), (P, D))


def forms_name(forms: Forms) -> str:
    return " | ".join(
        f"{group.value} {' '.join(str(pool) for pool in form)}" for group, form in sorted_forms(forms)
    )


def sorted_forms(forms: Forms) -> list[tuple[ModalityGroup, Form]]:
    return sorted(forms.items(), key=lambda item: item[0].value)


def pool_of(form: Form, stage: Stage) -> Pool | None:
    for pool in form:
        if stage in pool.roles:
            return pool
    return None


def assignments_of(forms: Forms) -> Counter[Assignment]:
    """How many instances are to play what."""
    wanted: Counter[Assignment] = Counter()
    for group, form in forms.items():
        for pool in form:
            assignment = Assignment(pool.roles, group)
            wanted[assignment] += pool.size
    return wanted


def layout_name(counts: Counter[Assignment]) -> str:
    """How many play what, whether or not that is a form."""
    return " ".join(sorted(f"{count}x{assignment}" for assignment, count in counts.items()))


@lru_cache(maxsize=4096)
def candidates(count: int, work: tuple[float, float, float], is_text: bool) -> tuple[Form, ...]:
    """Forms of `count` instances worth a look, given the work of the three stages (any unit).

    For each way of sharing instances, sizes in proportion to the work, rounded either way, and one beyond
    where there are two.
    """
    found: dict[Form, None] = {}
    for roles in TEXT_SHARING if is_text else MEDIA_SHARING:
        if len(roles) <= count:
            found.update(dict.fromkeys(_sized(roles, count, work)))
    return tuple(found)


def _sized(roles: tuple[Roles, ...], count: int, work: tuple[float, float, float]) -> Iterator[Form]:
    total = sum(work) or 1.0
    parts = [sum(work[_STAGES.index(stage)] for stage in each) / total for each in roles]
    beside = 1 if len(roles) == 2 else 0
    free = [
        range(max(1, floor(part * count) - beside), min(count, floor(part * count) + 1 + beside) + 1)
        for part in parts[:-1]
    ]
    for sizes in product(*free):
        rest = count - sum(sizes)
        if rest >= 1:
            yield tuple(Pool(each, size) for each, size in zip(roles, (*sizes, rest), strict=True))
