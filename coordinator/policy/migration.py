"""Where a decoding request could move to."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.policy.books import InstanceBook
from core.stages import ModalityGroup, Stage


def refusal(target: InstanceBook, num_tokens: int) -> str:
    """Why the instance cannot take a request of so many tokens, reserve included; empty if it can."""
    if Stage.DECODE not in target.roles:
        return f"{target.instance_id} does not play DECODE"
    if not target.is_open:
        return f"{target.instance_id} takes nothing new now"
    needed, free = target.kv_blocks(num_tokens), target.free_kv_blocks
    if needed > free:
        return (
            f"{target.instance_id} has no room: {needed} blocks are needed, {max(0, free)} are not promised"
        )
    return ""


def choose_target(
    instances: Iterable[InstanceBook], source: str, num_tokens: int, group: ModalityGroup
) -> str | None:
    """Of the decode instances with room, one of the group with fewest sequences, then most free blocks.

    One of another group only where the group has none, and none of another arm than the source's; None if
    nobody has room.
    """
    books = list(instances)
    arm = next((each.arm for each in books if each.instance_id == source), None)
    able = [
        each
        for each in books
        if each.instance_id != source and each.arm is arm and not refusal(each, num_tokens)
    ]
    best = min(able, key=lambda each: (not each.serves(group), *_load(each)), default=None)
    return None if best is None else best.instance_id


def _load(book: InstanceBook) -> tuple[int, int, str]:
    return book.load.sequences, -book.free_kv_blocks, book.instance_id
