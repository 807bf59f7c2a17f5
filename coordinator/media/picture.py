"""What a picture file says of itself, checked as far as its bytes are there and make sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from coordinator.errors import InvalidFieldError

# Read from the bytes themselves; names and declared types do not matter.
MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}

# What Pillow calls a JPEG with further pictures behind the first, as some cameras write it.
_MULTI_JPEG = "MPO"

_ORIENTATION_TAG = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations whose sides change places
_SMALL = (64, 64)  # JPEGs are decoded about this small


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """Size as shown, after EXIF orientation, pixels."""

    width: int
    height: int
    media_type: str


def inspect_picture(path: Path, max_pixels: int, field: str) -> PictureHeader:
    """Blocking; for a worker thread. Raises InvalidFieldError(field) for anything but a whole picture.

    The pixel limit is checked on the header, before anything is decompressed.
    """
    Image.MAX_IMAGE_PIXELS = None  # the limit below is ours, and an error rather than a warning
    try:
        with Image.open(path, formats=tuple(MEDIA_TYPES)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InvalidFieldError(field, f"{width}x{height} pixels, limit {max_pixels} in all")
            media_type = MEDIA_TYPES["JPEG" if image.format == _MULTI_JPEG else image.format or ""]
            width, height = _read_whole(image)
            is_turned = image.getexif().get(_ORIENTATION_TAG) in _TURNED
    except InvalidFieldError:
        raise
    except Exception as error:  # decoders of broken files raise whatever they run into
        raise InvalidFieldError(field, f"is no whole picture of a known kind ({_reason(error)})") from error
    if is_turned:
        width, height = height, width
    return PictureHeader(width, height, media_type)


def _read_whole(image: Image.Image) -> tuple[int, int]:
    """Decodes, as only that finds truncation and broken data; the picture's size afterwards.

    JPEGs are decoded small, which costs less and still reads every byte. TIFFs
    come out turned by their orientation already.
    """
    size = image.size
    if image.format in ("JPEG", _MULTI_JPEG):
        image.draft(None, _SMALL)
    image.load()
    return image.size if image.format == "TIFF" else size


def _reason(error: Exception) -> str:
    text = str(error)
    return "unknown format" if "cannot identify" in text else text or type(error).__name__
