"""Picture files of several formats and sizes, grainy as photographs are."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
from PIL import Image

from cli.load.pictures import make_picture

FORMATS = ("PNG", "JPEG", "WEBP")
SIZES = ((448, 448), (1288, 728), (2016, 1512))
_LOSSY: dict[str, Any] = {"quality": 90}
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": _LOSSY,
    "JPEG progressive": {**_LOSSY, "progressive": True},
    "WEBP": _LOSSY,
    "WEBP lossless": {"lossless": True, "method": 1},
    "TIFF deflate": {"compression": "tiff_deflate"},
}
_GRAIN = 6  # of 256, each way


def make_file(kind: str, width: int, height: int, seed: int = 1) -> bytes:
    """`kind` is a format of Pillow's, which may have words after it that say how. JPEG and WEBP with loss."""
    smooth = Image.open(io.BytesIO(make_picture(width, height, random.Random(seed))))
    grain = np.random.default_rng(seed).integers(-_GRAIN, _GRAIN + 1, (height, width, 3))
    pixels = (np.asarray(smooth).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind.split(maxsplit=1)[0], **_OPTIONS.get(kind, {}))
    return data.getvalue()
