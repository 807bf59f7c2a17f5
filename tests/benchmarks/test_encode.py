"""What an ideal pipeline takes, and how much of its saving is reached."""

import threading

import pytest

from benchmarks.encode import parse_args
from benchmarks.encoding.cases import COMPUTED, EMULATED
from benchmarks.encoding.files import FORMATS, make_file
from benchmarks.encoding.ideal import ideal_ttft_s, share_of_saving
from benchmarks.encoding.pauses import KINDS, measure_pauses
from benchmarks.encoding.pipelined import RATIOS, with_ratio
from coordinator.media.picture import MEDIA_TYPES
from core.encode_order import SLICE_S
from core.profile_file import load_profile
from stage_servers.engine.media import decode_picture


def test_an_ideal_pipeline_waits_for_whatever_is_later() -> None:
    encoded_s = [1.0, 1.0, 2.0, 2.0]
    assert ideal_ttft_s(encoded_s, 0.4) == pytest.approx(2.2)  # the last two, once they are there
    assert ideal_ttft_s(encoded_s, 8.0) == pytest.approx(9.0)  # prefill all the way from the first


def test_the_share_of_what_could_be_saved() -> None:
    assert share_of_saving(10.0, 8.0, 6.0) == 0.5
    assert share_of_saving(10.0, 6.0, 6.0) == 1.0


@pytest.mark.parametrize("ratio", RATIOS)
def test_profiles_have_the_ratio_asked_for(ratio: float) -> None:
    profile = with_ratio(load_profile("a800-qwen2.5-vl-7b"), ratio, (1288, 728), 6)
    num_tokens = profile.media.media_tokens(1288, 728)
    prefill_s = profile.prefill_s(0, 6 * num_tokens) / 6
    assert prefill_s / profile.encode.encode_s(num_tokens) == pytest.approx(ratio)


@pytest.mark.parametrize("kind", sorted({*FORMATS, *KINDS}))
def test_files_are_pictures_of_their_size(kind: str) -> None:
    assert decode_picture(make_file(kind, 64, 48)).size == (64, 48)


def test_pauses_are_measured_of_all_kinds_that_the_gateway_takes() -> None:
    assert {kind.split(maxsplit=1)[0] for kind in KINDS} == MEDIA_TYPES.keys()
    before = threading.active_count()
    found = measure_pauses("WEBP", (64, 48), rounds=2)
    assert (found.kind, found.pixels) == ("WEBP", 64 * 48)
    assert threading.active_count() == before


def test_small_pictures_are_small_and_large_ones_large() -> None:
    case = EMULATED[1]
    assert case.probe.picture_px is not None
    assert case.storm.picture_px is not None
    profile = load_profile("a800-qwen2.5-vl-7b")
    small, large = (
        profile.encode.encode_s(profile.media.media_tokens(*px))
        for px in (case.probe.picture_px, case.storm.picture_px)
    )
    assert small < SLICE_S < 10 * small < large
    assert all(each.groups for each in (EMULATED[0], *COMPUTED))


def test_the_command_line() -> None:
    args = parse_args(["storm", "--emulated", "m", "--rounds", "2"])
    assert (args.rounds, args.seed, args.computed) == (2, 0, None)
    assert parse_args(["workers", "--pictures", "m"]).rounds == 3
