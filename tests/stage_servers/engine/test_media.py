"""Picture files of every kind become RGB pixels, or a MediaError."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.sequence import MediaSpan
from stage_servers.engine.media import MediaError, decode_picture
from tests.exactness import expand
from tests.stage_servers.engine.conftest import Pair


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixel(data: bytes) -> tuple[int, ...]:
    found = decode_picture(data)
    assert found.mode == "RGB"
    value = found.getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


def test_transparency_lies_over_white() -> None:
    assert pixel(encode(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 255)))) == (0, 0, 0)
    assert pixel(encode(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)


def test_palettes() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(encode(image)) == (10, 20, 30)
    assert pixel(encode(image, transparency=1)) == (255, 255, 255)
    assert pixel(encode(image, "GIF")) == (10, 20, 30)


def test_cmyk() -> None:
    assert pixel(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")) == (255, 255, 255)


@pytest.mark.parametrize(("value", "shade"), [(0, 0), (65535, 255), (32768, 128), (300, 1)])
def test_sixteen_bits(value: int, shade: int) -> None:
    image = Image.fromarray(np.full((4, 4), value, dtype=np.uint16))
    assert pixel(encode(image)) == (shade,) * 3


def test_one_bit_and_grey() -> None:
    assert pixel(encode(Image.new("1", (4, 4), 1))) == (255, 255, 255)
    assert pixel(encode(Image.new("L", (4, 4), 77))) == (77, 77, 77)


def test_exif_orientation() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encode(image, "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        encode(Image.new("RGB", (64, 64)))[:60],
        encode(Image.new("RGB", (99, 99)), "JPEG")[:300],
    ],
)
def test_broken_files(data: bytes) -> None:
    with pytest.raises(MediaError, match="picture: cannot be decoded"):
        decode_picture(data)


def test_bombs() -> None:
    with pytest.raises(MediaError, match="64x64 pixels are more than 4095"):
        decode_picture(encode(Image.new("RGB", (64, 64))), max_pixels=4095)


def test_a_grid_unlike_the_prompts_is_refused(first: Pair) -> None:
    span = MediaSpan(0, 0, 4, (1, 4, 4), bytes(32))
    with pytest.raises(MediaError, match="patch grid"):
        first.model.preprocess(encode(Image.new("RGB", (112, 112))), span)


def test_batched_encoding_equals_one_by_one(pair: Pair) -> None:
    question = pair.question(4, pictures=[(112, 112), (60, 90), (200, 50)])
    _, spans = expand(pair.oracle.family, question)
    inputs = [pair.model.preprocess(data, span) for data, span in zip(question.pictures, spans, strict=True)]
    together = pair.model.encode(inputs)
    for item, span, embedding in zip(inputs, spans, together, strict=True):
        assert embedding.shape == (span.num_tokens, pair.model.embedding_width)
        assert torch.allclose(pair.model.encode([item])[0], embedding, atol=1e-5)


def test_preprocessing_needs_no_torchvision(first: Pair) -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from pathlib import Path; from tests.exactness import image_processor\n"
        f"image_processor(Path({str(first.path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
