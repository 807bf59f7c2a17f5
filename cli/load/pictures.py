"""Pictures for load: no two alike, about as hard to decode as photographs of that size."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw


def parse_size(text: str) -> tuple[int, int]:
    """(448, 336) from "448x336", pixels. Raises ValueError naming the text."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"picture-size: {text!r} is no size such as 448x448")
    return int(width), int(height)


def make_picture(width: int, height: int, rng: random.Random) -> bytes:
    """A JPEG of that size: soft noise with shapes on it."""
    noise = Image.frombytes("RGB", (16, 16), rng.randbytes(16 * 16 * 3))
    image = noise.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = rng.randrange(width), rng.randrange(height)
        box = (left, top, left + rng.randrange(1, width), top + rng.randrange(1, height))
        draw.ellipse(box, fill=(rng.randrange(256), rng.randrange(256), rng.randrange(256)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
