"""Pictures as the image processor's patches, kept as bytes until the training step."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from models.demo.scenes import SIZE_PX

PATCH, MERGE = 14, 2
Grid = tuple[int, int]


def to_patches(image: Image.Image) -> tuple[Grid, NDArray[np.uint8]]:
    """Patch grid (rows, columns) and patches (rows * columns, 3 * 14 * 14), in merge order.

    The same as the Hugging Face processor's, before its rescaling and without the second,
    equal frame.
    """
    area = SIZE_PX * SIZE_PX
    height, width = smart_resize(image.height, image.width, PATCH * MERGE, area, area)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    rows, columns = height // PATCH, width // PATCH
    pixels = np.asarray(image).reshape(rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    patches = pixels.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3 * PATCH * PATCH)
    return (rows, columns), np.ascontiguousarray(patches)


def normalise(patches: torch.Tensor) -> torch.Tensor:
    """Bytes (..., 3 * 14 * 14) to the floats that the processor would give for one frame."""
    mean = torch.tensor(Qwen2VLImageProcessorPil.image_mean, device=patches.device).repeat_interleave(
        PATCH * PATCH
    )
    deviation = torch.tensor(Qwen2VLImageProcessorPil.image_std, device=patches.device)
    return (patches.float() / 255 - mean) / deviation.repeat_interleave(PATCH * PATCH)
