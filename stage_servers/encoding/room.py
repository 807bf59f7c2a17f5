"""How far preprocessing may be ahead of the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stage_servers.encoding.item import MediaItem

MOST_S = 1.0  # of predicted encoding
MOST_BYTES = 128 << 20  # of pixels
_ALWAYS = 2  # one on the device, one that follows it


@dataclass(slots=True)
class _Held:
    num_items: int = 0
    seconds: float = 0.0
    size_bytes: int = 0


class Room:
    """Bounds predicted seconds and bytes of items between their fetching and their embedding.

    Small items and large ones have a room each, as large as the other. However large, two always fit.
    """

    def __init__(
        self,
        predict: Callable[[MediaItem], float],
        is_large: Callable[[MediaItem], bool],
        *,
        most_s: float = MOST_S,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._predict = predict
        self._is_large = is_large
        self._most_s = most_s
        self._most_bytes = most_bytes
        self._held = {False: _Held(), True: _Held()}
        self._taken: dict[MediaItem, tuple[bool, float]] = {}  # as predicted when it was let in

    @property
    def num_items(self) -> int:
        return len(self._taken)

    def take(self, item: MediaItem) -> bool:
        is_large, seconds = self._is_large(item), self._predict(item)
        held = self._held[is_large]
        fits = (
            held.seconds + seconds <= self._most_s and held.size_bytes + item.pixel_bytes <= self._most_bytes
        )
        if not (fits or held.num_items < _ALWAYS):
            return False
        self._taken[item] = is_large, seconds
        held.num_items += 1
        held.seconds += seconds
        held.size_bytes += item.pixel_bytes
        return True

    def give_back(self, item: MediaItem) -> None:
        is_large, seconds = self._taken.pop(item)
        held = self._held[is_large]
        held.num_items -= 1
        held.seconds -= seconds
        held.size_bytes -= item.pixel_bytes
