"""Sizes as shown, kinds from the bytes, and nothing broken gets in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from coordinator.errors import InvalidFieldError
from coordinator.media.picture import PictureHeader, inspect_picture
from tests.coordinator.conftest import picture

KINDS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
MAX_PIXELS = 1_000_000


def inspect(tmp_path: Path, data: bytes, max_pixels: int = MAX_PIXELS) -> PictureHeader:
    path = tmp_path / "item"
    path.write_bytes(data)
    return inspect_picture(path, max_pixels, "data")


def refusal(tmp_path: Path, data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(InvalidFieldError) as caught:
        inspect(tmp_path, data, max_pixels)
    assert caught.value.field == "data"
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str) -> None:
    assert inspect(tmp_path, picture(kind, (30, 20))) == PictureHeader(30, 20, KINDS[kind])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = inspect(tmp_path, picture(kind, (30, 20), exif=exif))
    assert (header.width, header.height) == ((20, 30) if orientation > 4 else (30, 20))


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "item"
    Image.new(mode, (12, 10)).save(path, "TIFF" if mode == "CMYK" else "PNG")
    assert inspect(tmp_path, path.read_bytes()).width == 12


def test_a_jpeg_with_more_pictures_behind_it(tmp_path: Path) -> None:
    more = [Image.new("RGB", (20, 30))]
    assert inspect(tmp_path, picture("MPO", (30, 20), append_images=more, save_all=True)) == PictureHeader(
        30, 20, "image/jpeg"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path: Path, kind: str) -> None:
    data = picture(kind, (300, 200))
    for share in (0.1, 0.5, 0.9):
        assert "is no whole picture" in refusal(tmp_path, data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not a picture",
        b"%PDF-1.4 text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
    ],
    ids=["empty", "zero", "text", "pdf", "svg", "png-signature"],
)
def test_not_pictures(tmp_path: Path, data: bytes) -> None:
    assert "is no whole picture" in refusal(tmp_path, data)


def test_broken_data_inside_a_sound_frame(tmp_path: Path) -> None:
    assert "is no whole picture" in refusal(tmp_path, png(30, 20, b"this is no zlib stream"))


def test_the_pixel_limit(tmp_path: Path) -> None:
    assert inspect(tmp_path, picture("PNG", (100, 100)), max_pixels=10_000).width == 100
    assert "100x100 pixels" in refusal(tmp_path, picture("PNG", (100, 100)), max_pixels=9_999)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    bomb = png(60_000, 60_000, zlib.compress(bytes(1_000_000)))
    assert "60000x60000 pixels" in refusal(tmp_path, bomb)


def png(width: int, height: int, compressed: bytes) -> bytes:
    """A grey PNG with these very bytes as its data, checksums right."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", compressed), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
