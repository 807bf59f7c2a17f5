"""A media item on its way through an encode instance."""

from __future__ import annotations

from dataclasses import dataclass

from core.sequence import MediaSpan
from stage_servers.media_pull import MediaSource

_BYTES_PER_TOKEN = 4 * 4 * 1176  # float32 pixels of four patches of 14x14, three colours, two frames


@dataclass(frozen=True, slots=True, eq=False)
class MediaItem:
    """Two are equal only if they are the same."""

    source: MediaSource
    span: MediaSpan
    arrived_s: float  # monotonic

    @property
    def num_tokens(self) -> int:
        return self.span.num_tokens

    @property
    def num_pixels(self) -> int:
        return self.source.num_pixels

    @property
    def place(self) -> int:
        return self.span.item_index

    @property
    def pixel_bytes(self) -> int:
        """About what it takes when it is preprocessed."""
        return self.num_tokens * _BYTES_PER_TOKEN
