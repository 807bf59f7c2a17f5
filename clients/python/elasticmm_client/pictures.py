"""Picture bytes from what users have at hand: bytes, a path, a PIL image."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import Any

from elasticmm_client.errors import InvalidRequest

_URL_STARTS = ("http://", "https://", "data:")
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})


def is_url(text: str) -> bool:
    return text[:8].lower().startswith(_URL_STARTS)


def read_picture(source: Any, field: str) -> bytes:
    """The file bytes of a picture. A PIL image becomes a PNG.

    Raises InvalidRequest naming `field`: no such file, no picture.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | PathLike):
        return _read_file(Path(source), field)
    if hasattr(source, "save") and hasattr(source, "mode"):
        return _encode_png(source)
    raise InvalidRequest(f"cannot take a picture from {type(source).__name__}", field=field)


def _read_file(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", field=field) from error


def _encode_png(image: Any) -> bytes:
    buffer = io.BytesIO()
    png = image if image.mode in _PNG_MODES else image.convert("RGB")
    png.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
