"""A profile: what one model costs on one kind of device, measured or derived; JSON on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from core.costs import EncodeCosts, MoveCosts, StepCosts
from core.families.media import PatchLayout
from core.record import RecordError


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class MediaRule:
    """How many tokens a picture takes.

    "patches": the picture is resized to multiples of `patch_px` within the pixel bounds, one token per
    patch_px x patch_px square (merging included). "tiles": it is cut into at most `max_tiles` squares of
    patch_px pixels, `tile_tokens` each.
    """

    kind: Literal["patches", "tiles"]
    patch_px: int
    min_pixels: int = 0
    max_pixels: int = 0
    max_tiles: int = 0
    tile_tokens: int = 0

    def media_tokens(self, width: int, height: int) -> int:
        """Raises ValueError for a size that the processor refuses."""
        if self.kind == "patches":
            patches = PatchLayout(self.patch_px, 1, self.min_pixels, self.max_pixels)
            return patches.of(width, height).num_tokens
        return self.tile_tokens * self.num_tiles(width, height)

    def num_tiles(self, width: int, height: int) -> int:
        """Tiles of the canvas that the picture is fitted into, for kind "tiles".

        The canvas that enlarges the picture least, else that which shrinks it least; of equals the smallest.
        """
        if width < 1 or height < 1:
            raise ValueError(f"a picture of {width}x{height} pixels is empty")
        best: tuple[float, int] | None = None
        for columns in range(1, self.max_tiles + 1):
            for rows in range(1, self.max_tiles // columns + 1):
                scale = min(columns * self.patch_px / width, rows * self.patch_px / height)
                distance = scale if scale >= 1 else 1e9 / scale  # any that enlarges before any that shrinks
                if best is None or (distance, rows * columns) < best:
                    best = distance, rows * columns
        assert best is not None, "a rule of no tiles"
        return best[1]

    def check(self) -> None:
        """Raises RecordError naming the key that does not fit the kind."""
        needed = {
            "patches": ("patch_px", "min_pixels", "max_pixels"),
            "tiles": ("patch_px", "max_tiles", "tile_tokens"),
        }
        for name in needed[self.kind]:
            _check_positive(f"media.{name}", getattr(self, name))
        if self.kind == "patches" and self.max_pixels < self.min_pixels:
            raise RecordError("media.max_pixels", f"is under min_pixels ({self.min_pixels})")


@dataclass(frozen=True, slots=True)
class Profile:
    """Costs of one instance (a device, or several in parallel) and what it can hold."""

    name: str
    model: str
    device: str
    parallelism: str  # "tp1"
    origin: Literal["measured", "derived"]
    sources: tuple[str, ...]  # where every constant comes from
    step: StepCosts
    encode: EncodeCosts
    kv_move: MoveCosts
    embedding_move: MoveCosts
    media: MediaRule
    kv_bytes_per_token: int
    embedding_bytes_per_token: int
    kv_tokens: int  # that the KV pool of one instance holds
    embedding_tokens: int
    block_tokens: int
    chunk_tokens: int  # most new tokens of one step
    max_sequences: int
    price_per_hour: float | None = None  # of one instance, in US dollars
    # None: media tokens are tokens of the sequence. Else the model takes them in by cross-attention in some
    # of its layers: nothing is computed for them, and in attention and KV each weighs so much of a token.
    # Only the simulator serves such models.
    cross_attention_share: float | None = None
    fit: dict[str, float] = field(default_factory=dict)  # relative errors of a measured profile, by term

    @property
    def is_simulation_only(self) -> bool:
        return self.cross_attention_share is not None

    def new_tokens(self, text_tokens: int, media_tokens: int) -> int:
        """Tokens that the prefill of such a prompt computes."""
        return text_tokens + (media_tokens if self.cross_attention_share is None else 0)

    def side_tokens(self, media_tokens: int) -> int:
        """Tokens of context that media lays beside the sequence: attended to and held as KV, not computed."""
        return math.ceil(media_tokens * (self.cross_attention_share or 0.0))

    def context_tokens(self, text_tokens: int, media_tokens: int) -> int:
        """Tokens' worth of KV that such a prompt holds."""
        return self.new_tokens(text_tokens, media_tokens) + self.side_tokens(media_tokens)

    def prefill_s(self, text_tokens: int, media_tokens: int = 0, cached_tokens: int = 0) -> float:
        """The prompt alone on the device, but for its first `cached_tokens`."""
        new = self.new_tokens(text_tokens, media_tokens) - cached_tokens
        return self.step.prefill_s(new, self.chunk_tokens, self.side_tokens(media_tokens) + cached_tokens)

    def with_efficiency(self, prefill: float = 1.0, encode: float = 1.0, bandwidth: float = 1.0) -> Profile:
        """The same device if it reached so many times the arithmetic rate in steps and in encodes, and the
        bandwidth of memory and links: how sensitive a result is to what was assumed.
        """
        step = replace(
            self.step, bytes=self.step.bytes.scaled(1 / bandwidth), flops=self.step.flops.scaled(1 / prefill)
        )
        return replace(
            self,
            step=step,
            encode=self.encode.scaled(1 / encode),
            kv_move=replace(self.kv_move, bytes_per_s=self.kv_move.bytes_per_s * bandwidth),
            embedding_move=replace(
                self.embedding_move, bytes_per_s=self.embedding_move.bytes_per_s * bandwidth
            ),
        )

    def check(self) -> None:
        """Raises RecordError naming a key that is zero where nothing could be served so, or does not fit."""
        for key in _POSITIVE:
            _check_positive(key, _value_at(self, key))
        if self.kv_tokens < self.block_tokens:
            raise RecordError("kv_tokens", f"is under one block ({self.block_tokens})")
        if self.step.decode_step_s(1, 1) <= 0:
            raise RecordError("step", "takes no time: all that a decode costs is zero")
        if not 0 <= (self.cross_attention_share or 0.0) <= 1:
            problem = f"should be from 0 to 1, is {self.cross_attention_share:g}"
            raise RecordError("cross_attention_share", problem)
        self.media.check()
        if not self.sources:
            raise RecordError("sources", "is empty: say where the constants come from")


_POSITIVE = (
    "kv_move.bytes_per_s",
    "embedding_move.bytes_per_s",
    "kv_bytes_per_token",
    "embedding_bytes_per_token",
    "kv_tokens",
    "embedding_tokens",
    "block_tokens",
    "chunk_tokens",
    "max_sequences",
)


def _value_at(record: object, key: str) -> float:
    value = record
    for name in key.split("."):
        value = getattr(value, name)
    assert isinstance(value, int | float)
    return value


def _check_positive(key: str, value: float) -> None:
    if value <= 0:
        raise RecordError(key, f"should be more than zero, is {value:g}")
