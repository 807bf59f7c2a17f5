"""Where a decoding request could move to."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.policy.view import InstanceView, num_blocks
from core.stages import Stage


def refusal(target: InstanceView, num_tokens: int) -> str:
    """Why the instance cannot take a request of so many tokens, reserve included; empty if it can."""
    if Stage.DECODE not in target.roles:
        return f"{target.instance_id} does not play DECODE"
    needed = num_blocks(num_tokens, target.block_tokens)
    free = target.total_kv_blocks - target.promised_kv_blocks
    if needed > free:
        return (
            f"{target.instance_id} has no room: {needed} blocks are needed, {max(0, free)} are not promised"
        )
    return ""


def choose_target(instances: Iterable[InstanceView], source: str, num_tokens: int) -> str | None:
    """The decode instance with fewest sequences, then most free blocks, that has room; None if none has."""
    able = [each for each in instances if each.instance_id != source and not refusal(each, num_tokens)]
    best = min(able, key=_load, default=None)
    return None if best is None else best.instance_id


def _load(view: InstanceView) -> tuple[int, int, str]:
    return view.sequences, view.promised_kv_blocks - view.total_kv_blocks, view.instance_id
