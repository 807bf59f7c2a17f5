"""Measures pictures: preprocessing on the host by pixels, the vision tower on the device by tokens."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from core.sequence import MediaSpan
from stage_servers.engine.model import Model
from stage_servers.profiling.samples import SizeSample
from stage_servers.profiling.timing import Stopwatch


def measure_encode(model: Model, side: int, watch: Stopwatch) -> SizeSample:
    """The vision tower on the device, by tokens, for one square picture."""
    data, span = _item(model, side)
    pixels = model.preprocess(data, span)
    return SizeSample(span.num_tokens, watch.median(lambda: model.encode([pixels])))


def measure_preprocess(model: Model, side: int, watch: Stopwatch) -> SizeSample:
    """Decoding, resizing and normalising on the host, by pixels of the picture file."""
    data, span = _item(model, side)
    return SizeSample(side * side, watch.median(lambda: model.preprocess(data, span)))


def _item(model: Model, side: int) -> tuple[bytes, MediaSpan]:
    data = picture(side)
    layout = model.description.layout(side, side)
    return data, MediaSpan(0, 0, layout.num_tokens, layout.grid, hashlib.sha256(data).digest())


def picture(side: int) -> bytes:
    """A JPEG file with gradients and some noise, so that decoding it takes what a photograph does."""
    ramp = np.linspace(0, 200, side)
    draw = np.random.default_rng(0)
    channels = np.stack(
        [np.add.outer(ramp, ramp) / 2, np.add.outer(ramp, -ramp) / 2 + 100, np.tile(ramp, (side, 1))]
    )
    noisy = np.clip(channels + draw.normal(0, 12, channels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
    return file.getvalue()
