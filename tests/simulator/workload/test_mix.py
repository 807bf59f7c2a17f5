from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from simulator.workload.bursts import BurstSpec, with_burst
from simulator.workload.errors import WorkloadError
from simulator.workload.mix import MixSpec, mix
from simulator.workload.spec import Workload, WorkloadSpec

SPEC = MixSpec(pictures="sharegpt-4o", text_share=0.25, duration_s=400.0)


def test_means_are_the_published_ones() -> None:
    requests = mix(SPEC, 50.0, 1)
    pictures = [each for each in requests if each.source == "sharegpt-4o"]
    texts = [each for each in requests if each.source == "text"]
    assert len(texts) / len(requests) == pytest.approx(0.25, abs=0.02)
    assert mean(each.pictures[0].width_px for each in pictures) == pytest.approx(802, rel=0.02)
    assert mean(each.pictures[0].height_px for each in pictures) == pytest.approx(652, rel=0.02)
    assert mean(each.text_tokens for each in pictures) == pytest.approx(9.6, rel=0.05)
    assert mean(each.text_tokens for each in texts) == pytest.approx(161.31, rel=0.1)
    assert {each.output_tokens for each in requests} == {64}


def test_a_seed_gives_the_same_requests() -> None:
    assert mix(SPEC, 5.0, 3) == mix(SPEC, 5.0, 3)
    assert mix(SPEC, 5.0, 3) != mix(SPEC, 5.0, 4)


def test_repeated_pictures_are_equal_pictures() -> None:
    requests = mix(replace(SPEC, repeat_share=0.5), 5.0, 1)
    pictures = [each.pictures[0] for each in requests if each.pictures]
    by_digest = {each.digest: each for each in pictures}
    assert 0.4 < 1 - len(by_digest) / len(pictures) < 0.6
    assert all(by_digest[each.digest] == each for each in pictures)


def test_an_image_burst_adds_pictures_for_its_time() -> None:
    burst = BurstSpec("images", 100.0, 30.0, 4.0)
    requests = with_burst(mix(SPEC, 5.0, 1), burst, 5.0, 1)
    extra = [each for each in requests if each.request_id.startswith("burst0-")]
    assert len(extra) == pytest.approx(4 * 5 * 30, rel=0.15)
    assert all(100 <= each.arrival_s < 130 and each.pictures for each in extra)
    assert [each.arrival_s for each in requests] == sorted(each.arrival_s for each in requests)


def test_bursts_that_repeat_make_a_square_wave() -> None:
    wave = BurstSpec("images", 100.0, 10.0, 4.0, times=5, every_s=20.0)
    requests = with_burst(mix(SPEC, 5.0, 1), wave, 5.0, 1)
    extra = [each for each in requests if each.request_id.startswith("burst0-")]
    assert len(extra) == pytest.approx(5 * 4 * 5 * 10, rel=0.15)
    assert all(100 <= each.arrival_s < 200 and (each.arrival_s - 100) % 20 < 10 for each in extra)
    assert len({each.request_id for each in requests}) == len(requests)
    storms = with_burst(requests, replace(wave, kind="tokens"), 5.0, 1)
    grown = [new.arrival_s for old, new in zip(requests, storms, strict=True) if new != old]
    assert {int(at_s - 100) % 20 < 10 for at_s in grown} == {True}
    assert max(grown) > 180


def test_a_token_storm_leaves_the_request_rate_alone() -> None:
    before = mix(SPEC, 5.0, 1)
    after = with_burst(before, BurstSpec("tokens", 100.0, 200.0, 5.0), 5.0, 1)
    assert [each.arrival_s for each in after] == [each.arrival_s for each in before]
    for old, new in zip(before, after, strict=True):
        factor = 5 if 100 <= old.arrival_s < 300 else 1
        assert new.text_tokens == factor * old.text_tokens
        assert len(new.pictures) == factor * len(old.pictures)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (WorkloadSpec(), "mix: there should be either mix or trace"),
        (WorkloadSpec(mix=replace(SPEC, text_share=1.5)), "mix.text_share: should be from 0 to 1, is 1.5"),
        (
            WorkloadSpec(mix=replace(SPEC, pictures="cats")),
            r"mix.pictures: 'cats' is no set of pictures \(there are ",
        ),
        (WorkloadSpec(mix=replace(SPEC, cv=2.0)), "mix.cv: is for arrivals"),
        (WorkloadSpec(mix=replace(SPEC, duration_s=-1.0)), "mix.duration_s: should be more than zero"),
        (
            WorkloadSpec(mix=SPEC, bursts=(BurstSpec("images", 0.0, 300.0, 2.0),)),
            r"bursts\[0\].duration_s: a burst of images lasts at most 60 s",
        ),
        (
            WorkloadSpec(mix=SPEC, bursts=(BurstSpec("images", 0.0, 30.0, 2.0, times=2, every_s=20.0),)),
            r"bursts\[0\].every_s: of several should be at least the duration, is 20",
        ),
        (
            WorkloadSpec(mix=SPEC, bursts=(BurstSpec("images", 0.0, 30.0, 2.0, times=0),)),
            r"bursts\[0\].times: should be more than zero, is 0",
        ),
    ],
)
def test_what_is_wrong_is_named(spec: WorkloadSpec, message: str) -> None:
    with pytest.raises(WorkloadError, match=f"^{message}"):
        spec.check()


def test_no_request_at_all_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="rate_rps: 0.0001 gives no request"):
        Workload(WorkloadSpec(mix=replace(SPEC, duration_s=1.0)), Path(), 1).requests(0.0001)
