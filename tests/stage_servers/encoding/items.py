"""Media items to pass through the parts of the pipeline."""

from __future__ import annotations

from core.sequence import MediaSpan
from stage_servers.encoding.item import MediaItem
from stage_servers.media_pull import MediaSource

LARGE_TOKENS = 100  # where a test says what is large


def media_item(num_tokens: int, *, arrived_s: float = 0.0, place: int = 0) -> MediaItem:
    source = MediaSource(bytes(32), 1, "", "", "", num_pixels=num_tokens)
    return MediaItem(source, MediaSpan(place, 0, num_tokens, (1, 2, 2), bytes(32)), arrived_s)


def is_large(item: MediaItem) -> bool:
    return item.num_tokens >= LARGE_TOKENS
