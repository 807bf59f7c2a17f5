"""Which instances take which part of a form: as few as can be change, and those that lose least."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from coordinator.policy.books import InstanceBook
from coordinator.policy.plan import Assignment
from core.stages import ModalityGroup, Roles, Stage


def matched(
    movable: Mapping[str, InstanceBook], present: Mapping[str, Assignment], slots: Mapping[Assignment, int]
) -> dict[str, Assignment]:
    """Gives every slot an instance; there are as many of both.

    Those that play what a slot asks for keep it. The others go where they have least to give up.
    """
    left = dict(slots)
    found: dict[str, Assignment] = {}
    for name in movable:
        if left.get(present[name], 0) > 0:
            found[name] = present[name]
            left[present[name]] -= 1
    rest = [name for name in movable if name not in found]
    left = {assignment: count for assignment, count in left.items() if count > 0}
    for assignment in sorted(left, key=_hardest_first):
        rest.sort(key=lambda name: given_up(movable[name], assignment))
        count = left[assignment]
        found.update(dict.fromkeys(rest[:count], assignment))
        rest = rest[count:]
    return found


def given_up(book: InstanceBook, wanted: Assignment) -> tuple[int, str]:
    """What an instance has to drain or move first, in tokens."""
    load = book.load
    leaves = ModalityGroup.SHARED not in (wanted.group, book.group) and wanted.group is not book.group
    encode, prefill, decode = (True, True, True) if leaves else _gone(book.roles, wanted.roles)
    tokens = load.context_tokens + load.sequences if decode else 0
    tokens += load.prefill_tokens if prefill else 0
    return tokens + (load.encode_tokens if encode else 0), book.instance_id


@lru_cache(maxsize=64)
def _gone(before: Roles, after: Roles) -> tuple[bool, bool, bool]:
    """Whether encode, prefill and decode are played before and not after."""
    gone = before - after
    return Stage.ENCODE in gone, Stage.PREFILL in gone, Stage.DECODE in gone


def _hardest_first(assignment: Assignment) -> tuple[int, str]:
    """Slots that decode choose first: there it matters most whose sequences may stay."""
    return int(Stage.DECODE not in assignment.roles), str(assignment)
