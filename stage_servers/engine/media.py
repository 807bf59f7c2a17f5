"""From the bytes of a picture file to RGB pixels. Worker threads; Pillow only."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64 << 20  # before decoding; beyond lie decompression bombs

_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class MediaError(ValueError):
    """A media item that cannot be decoded or is refused."""


def decode_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB picture, upright as its EXIF orientation says, transparency laid over white.

    Raises MediaError for what is no picture, broken, or larger than max_pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > max_pixels:
                raise MediaError(f"picture: {image.width}x{image.height} pixels are more than {max_pixels}")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"picture: cannot be decoded ({error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        # convert() would clip to 255; the high byte is the picture.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
