"""Token counts are those of the published processors; files say which key does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.families import PatchLayout
from core.profile import MediaRule, ProfileError
from core.profile_file import (
    SHIPPED,
    format_profile,
    load_profile,
    parse_profile,
    read_profile,
    shipped_profiles,
    write_profile,
)
from tests.core.profiles import PROFILE
from tests.exactness import tile_canvas

side = st.integers(1, 4000)
TILES = MediaRule("tiles", patch_px=560, max_tiles=4, tile_tokens=1601)


def content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(format_profile(PROFILE))
    return found


def problem_of(value: object) -> str:
    with pytest.raises(ProfileError) as caught:
        parse_profile(json.dumps(value), "costs.json")
    return str(caught.value)


@given(side, side)
def test_patches_are_those_of_the_family(width: int, height: int) -> None:
    rule, layout = MediaRule("patches", 28, 3136, 1003520), PatchLayout(14, 2, 3136, 1003520)
    if max(width, height) / min(width, height) > 200:
        with pytest.raises(ValueError, match="longer than"):
            rule.media_tokens(width, height)
    else:
        assert rule.media_tokens(width, height) == layout.of(width, height).num_tokens


@given(side, side)
def test_tiles_are_those_of_the_published_processor(width: int, height: int) -> None:
    columns, rows = (length // 560 for length in tile_canvas(width, height, 4, 560))
    assert TILES.media_tokens(width, height) == 1601 * rows * columns


def test_an_empty_picture_has_no_tiles() -> None:
    with pytest.raises(ValueError, match="0x5 pixels is empty"):
        TILES.media_tokens(0, 5)


def test_a_file_gives_the_profile_back(tmp_path: Path) -> None:
    profile = replace(PROFILE, price_per_hour=2.5, cross_attention_share=0.25, fit={"decode median": 0.03})
    write_profile(profile, tmp_path / "costs.json")
    assert read_profile(tmp_path / "costs.json") == profile == load_profile(str(tmp_path / "costs.json"))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("step.flops.per_new_token_s", -1, "should not be negative, is -1"),
        ("step.flops.per_new_token_s", "1", "should be a number, is '1'"),
        ("step.flops.per_new_token_s", True, "should be a number, is True"),
        ("step.flops.per_new_token_s", float("nan"), "should be a finite number"),
        ("step.flops.per_new_token_s", 10**400, "should be a finite number"),
        ("step.fixd_s", 1, "is no known key (known: fixed_s, bytes, flops)"),
        ("step", 3, "should be a table, is 3"),
        ("kv_tokens", 3.0, "should be a whole number, is 3.0"),
        ("kv_tokens", 0, "should be more than zero, is 0"),
        ("kv_move.bytes_per_s", 0, "should be more than zero, is 0"),
        ("media.kind", "squares", "should be one of patches, tiles, is 'squares'"),
        ("media.max_pixels", 5, "is under min_pixels (3136)"),
        ("sources", "me", "should be a list, is 'me'"),
        ("sources", [], "is empty: say where the constants come from"),
        ("fit.decode", "good", "should be a number, is 'good'"),
        ("price_per_hour", "free", "should be a number, is 'free'"),
        ("origin", None, "should be one of measured, derived, is None"),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: object, problem: str) -> None:
    table = whole = content()
    *way, last = path.split(".")
    for name in way:
        table = table[name]
    table[last] = value
    assert problem_of(whole) == f"costs.json: {path}: {problem}"


def test_a_missing_key_is_named() -> None:
    whole = content()
    del whole["step"]["bytes"]["base_s"]
    assert problem_of(whole) == "costs.json: step.bytes.base_s: is missing"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"name": }'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="costs.json: is no JSON"):
        parse_profile(text, "costs.json")


def test_a_key_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(ProfileError, match="name: stands there twice"):
        parse_profile('{"name": "a", "name": "b"}', "costs.json")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="gone.json: cannot be read"):
        load_profile(tmp_path / "gone.json")
    with pytest.raises(ProfileError, match="nothing: no profile of that name"):
        load_profile("nothing")
    (tmp_path / "latin.json").write_bytes(b"\xff")
    with pytest.raises(ProfileError, match="not UTF-8"):
        load_profile(tmp_path / "latin.json")


def test_every_shipped_profile_loads_under_its_name() -> None:
    assert len(shipped_profiles()) == len(list(SHIPPED.glob("*.json")))
    for name in shipped_profiles():
        assert load_profile(name).name == name


@given(st.integers(1, 5000), st.integers(0, 9000))
def test_media_beside_the_sequence_is_attended_to_but_not_computed(text: int, media: int) -> None:
    beside = replace(PROFILE, cross_attention_share=0.25)
    assert beside.new_tokens(text, media) == text
    assert beside.context_tokens(text, media) == text + -(-media // 4)
    assert PROFILE.context_tokens(text, media) == PROFILE.new_tokens(text, media) == text + media
    in_sequence, none = PROFILE.prefill_s(text, media), PROFILE.prefill_s(text)
    assert none <= beside.prefill_s(text, media) <= in_sequence * 1.001


def test_a_device_that_reaches_more() -> None:
    better = PROFILE.with_efficiency(prefill=2, encode=4, bandwidth=1.25)
    assert better.prefill_s(2000) - 1e-3 == pytest.approx((PROFILE.prefill_s(2000) - 1e-3) / 2)
    assert better.encode.encode_s(500) == pytest.approx(PROFILE.encode.encode_s(500) / 4)
    assert better.encode.per_pixel_s == PROFILE.encode.per_pixel_s
    assert better.step.bytes.base_s == pytest.approx(PROFILE.step.bytes.base_s / 1.25)
    assert better.kv_move.bytes_per_s == PROFILE.kv_move.bytes_per_s * 1.25
