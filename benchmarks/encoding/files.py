"""Picture files of several formats and sizes, grainy as photographs are."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image

from cli.load.pictures import make_picture

FORMATS = ("PNG", "JPEG", "WEBP")
SIZES = ((448, 448), (1288, 728), (2016, 1512))
_GRAIN = 6  # of 256, each way
_QUALITY = 90


def make_file(kind: str, width: int, height: int, seed: int = 1) -> bytes:
    """PNG without loss, the others with."""
    smooth = Image.open(io.BytesIO(make_picture(width, height, random.Random(seed))))
    grain = np.random.default_rng(seed).integers(-_GRAIN, _GRAIN + 1, (height, width, 3))
    pixels = (np.asarray(smooth).astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
    data = io.BytesIO()
    quality = {} if kind == "PNG" else {"quality": _QUALITY}
    Image.fromarray(pixels).save(data, kind, **quality)
    return data.getvalue()
