"""Which points are measured: spread over what the model and the memory at hand allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kv_transfer.blocks import blocks_for

if TYPE_CHECKING:
    from core.families import PatchLayout
    from stage_servers.config import StageConfig
    from stage_servers.engine.model import Model

_LONGEST_PROMPT = 2048
_BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
_CONTEXTS = (64, 512, 1536)
_PICTURE_SIDES = (56, 112, 168, 224, 336, 448, 672, 896, 1120)
_FILE_SIDES = (320, 560, 960)  # of picture files, which may be larger than what is encoded
_MOVED_TOKENS = (16, 128, 512, 2048)
_ROUNDS = 3
_ROUNDS_ALONE = 2
_SPARE_TOKENS = 32  # that sequences may grow by while they are measured


@dataclass(frozen=True, slots=True)
class DecodePoint:
    num_sequences: int
    context_tokens: int  # of each


@dataclass(frozen=True, slots=True)
class Plan:
    """All points of one profile; `pool_tokens` is what the KV pool has to hold for them."""

    chunk_sizes: tuple[int, ...]
    prompt_tokens: int  # of the prompts that are cut into those chunks
    decodes: tuple[DecodePoint, ...]
    encoded_sides: tuple[int, ...]  # of square pictures, by what is encoded
    file_sides: tuple[int, ...]  # by what is preprocessed
    moved_tokens: tuple[int, ...]
    pool_tokens: int
    rounds: int = _ROUNDS  # over all points; the least disturbed one counts for each
    repeats: int = 5  # of a point in a round
    point_s: float = 0.25  # a point is repeated no more in a round once it has taken so long

    @property
    def num_points(self) -> int:
        """What progress counts to."""
        steps = 2 * len(self.chunk_sizes) + 1 + len(self.decodes)
        pictures = len(self.encoded_sides) + len(self.file_sides)
        return self.rounds * (steps + pictures + 2 * len(self.moved_tokens))


def plan_for(model: Model, config: StageConfig, room_tokens: int) -> Plan:
    """What fits into a pool of `room_tokens` and into the model's context."""
    longest = min(_LONGEST_PROMPT, model.context_tokens - _SPARE_TOKENS, room_tokens // 2)
    chunks = _chunk_sizes(min(config.chunk_tokens, longest))
    contexts = sorted({min(context, longest) for context in _CONTEXTS})
    decodes = tuple(
        DecodePoint(batch, context)
        for batch in _BATCHES
        for context in contexts
        if batch <= config.max_sequences and batch * (context + _SPARE_TOKENS) <= room_tokens
    )
    is_shared = model.device.type == "cpu"  # with whatever else the host does
    moved = tuple(sorted({min(count, longest) for count in _MOVED_TOKENS}))
    return Plan(
        chunk_sizes=chunks,
        prompt_tokens=longest,
        decodes=decodes,
        encoded_sides=_sides(model.description.patches),
        file_sides=_FILE_SIDES,
        moved_tokens=moved,
        pool_tokens=room_tokens,
        rounds=_ROUNDS if is_shared else _ROUNDS_ALONE,
    )


def _chunk_sizes(most: int) -> tuple[int, ...]:
    """Powers of two up to the largest chunk, and that."""
    sizes = {most}
    size = 8
    while size < most:
        sizes.add(size)
        size *= 2
    return tuple(sorted(sizes))


def _sides(layout: PatchLayout) -> tuple[int, ...]:
    """Sides of square pictures that are not resized, each of another number of tokens."""
    found = [side for side in _PICTURE_SIDES if layout.min_pixels <= side * side <= layout.max_pixels]
    sides = {layout.of(side, side).num_tokens: side for side in found or _PICTURE_SIDES[:2]}
    return tuple(sides.values())


def pool_blocks(plan: Plan, block_tokens: int) -> int:
    return blocks_for(plan.pool_tokens, block_tokens)
