"""Grids and token counts are those of transformers' processor."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.families import PatchLayout, load_family
from tests.exactness import image_processor, resized

LIMITS = [
    (14, 2, 56 * 56, 28 * 28 * 1280),
    (16, 2, 65536, 16777216),
    (14, 2, 112 * 112, 112 * 112),
    (14, 1, 1, 9999),
]


@pytest.mark.parametrize("limits", LIMITS)
@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_sizes_equal_those_of_the_processor(
    limits: tuple[int, int, int, int], width: int, height: int
) -> None:
    patch, merge, low, high = limits
    ours = PatchLayout(patch, merge, low, high)
    if max(width, height) / min(width, height) > 200:
        with pytest.raises(ValueError, match="longer than 200 times"):
            ours.of(width, height)
        return
    assert ours.resize(width, height) == resized(width, height, patch * merge, low, high)


def test_whole_pictures_equal_those_of_the_processor(folder: Path) -> None:
    family = load_family(folder)
    processor = image_processor(folder)
    rng = random.Random(0)
    for _ in range(20):
        width, height = rng.randint(10, 700), rng.randint(10, 700)
        found = processor(images=[Image.new("RGB", (width, height))])["image_grid_thw"][0]
        layout = family.layout(width, height)
        assert layout.grid == tuple(found)
        assert layout.num_tokens == found.prod() // 4


@pytest.mark.parametrize("bound", [1, 56 * 56, 9999, 112 * 112, 224 * 224, 10**9])
def test_bounded_pictures_equal_those_of_the_processor(folder: Path, bound: int) -> None:
    family = load_family(folder)
    processor = image_processor(folder)
    least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
    processor.size["longest_edge"] = min(max(bound, least), most)
    rng = random.Random(1)
    for _ in range(20):
        width, height = rng.randint(10, 700), rng.randint(10, 700)
        found = processor(images=[Image.new("RGB", (width, height))])["image_grid_thw"][0]
        layout = family.layout(width, height, bound)
        assert layout.grid == tuple(found)
        assert layout.max_pixels in (None, processor.size["longest_edge"])


def test_what_a_bound_leaves_as_it_is_has_none(folder: Path) -> None:
    family = load_family(folder)
    assert family.layout(60, 60, 112 * 112) == family.layout(60, 60)
    assert family.layout(600, 600, 224 * 224) == family.layout(600, 600)
    assert family.layout(600, 600, 112 * 112).max_pixels == 112 * 112


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_empty_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        PatchLayout(14, 2, 1, 100).of(*size)


def test_a_real_file(folder: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (120, 90)).save(data, "PNG")
    with Image.open(data) as image:
        assert load_family(folder).layout(*image.size).num_tokens > 0
