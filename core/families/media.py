"""How many tokens a picture takes, from its size alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class MediaLayout:
    """What a media item becomes in the prompt; read by the coordinator and the encoder."""

    grid: tuple[int, ...]  # patches (time, height, width) before merging
    num_tokens: int  # placeholder tokens
    max_pixels: int | None = None  # the bound that made it smaller; None: it is as the processor has it


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """The resizing rule of processors that cut a picture into patches merged by squares."""

    patch_px: int
    merge: int  # patches per token along each side
    min_pixels: int
    max_pixels: int

    def of(self, width: int, height: int, max_pixels: int | None = None) -> MediaLayout:
        """`max_pixels`: of this picture, where that is less. Raises ValueError for a size that is refused."""
        whole = self._of(width, height)
        if max_pixels is None or max_pixels >= self.max_pixels:
            return whole
        bound = max(max_pixels, self.min_pixels)
        smaller = replace(self, max_pixels=bound)._of(width, height)
        return whole if smaller == whole else replace(smaller, max_pixels=bound)

    def _of(self, width: int, height: int) -> MediaLayout:
        new_width, new_height = self.resize(width, height)
        rows, columns = new_height // self.patch_px, new_width // self.patch_px
        return MediaLayout((1, rows, columns), rows * columns // self.merge**2)

    def resize(self, width: int, height: int) -> tuple[int, int]:
        """The size in pixels after resizing: multiples of a token's side, within the pixel limits."""
        if width < 1 or height < 1:
            raise ValueError(f"a picture of {width}x{height} pixels is empty")
        if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
            raise ValueError(
                f"a picture of {width}x{height} pixels is longer than {MAX_ASPECT_RATIO} times its breadth"
            )
        side = self.patch_px * self.merge
        rounded = round(width / side) * side, round(height / side) * side
        if rounded[0] * rounded[1] > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            return max(side, _floor(width / shrink, side)), max(side, _floor(height / shrink, side))
        if rounded[0] * rounded[1] < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            return _ceil(width * grow, side), _ceil(height * grow, side)
        return rounded


def _floor(length: float, side: int) -> int:
    return math.floor(length / side) * side


def _ceil(length: float, side: int) -> int:
    return math.ceil(length / side) * side
