from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from simulator.workload.errors import WorkloadError
from simulator.workload.mix import MixSpec
from simulator.workload.repeats import RepeatSpec, with_repeats
from simulator.workload.spec import Workload, WorkloadSpec

SPEC = WorkloadSpec(mix=MixSpec(text_share=0.0, duration_s=400.0), repeats=RepeatSpec(0.5, 100, 0.8))


def digests(spec: WorkloadSpec, seed: int = 1) -> Counter[int | None]:
    requests = Workload(spec, None, seed).requests(10.0)  # type: ignore[arg-type]
    return Counter(picture.digest for request in requests for picture in request.pictures)


def test_half_of_the_pictures_are_popular_ones() -> None:
    found = digests(SPEC)
    popular = sum(count for digest, count in found.items() if digest is not None and digest < 100)
    assert popular / found.total() == pytest.approx(0.5, abs=0.03)
    assert all(count == 1 for digest, count in found.items() if digest is None or digest >= 100)


def test_popularity_is_that_of_zipf() -> None:
    found = digests(SPEC)
    assert found[0] / found[9] == pytest.approx(10**0.8, rel=0.35)


def test_the_same_seed_repeats_the_same() -> None:
    assert digests(SPEC) == digests(SPEC) != digests(SPEC, seed=2)


def test_equal_pictures_have_one_size_and_all_else_stays() -> None:
    plain = Workload(replace(SPEC, repeats=None), None, 1).requests(10.0)  # type: ignore[arg-type]
    repeated = with_repeats(plain, RepeatSpec(0.5, 100, 0.8), 1)
    sizes = {picture.digest: picture for each in repeated for picture in each.pictures}
    assert all(sizes[picture.digest] == picture for each in repeated for picture in each.pictures)
    assert [replace(each, pictures=()) for each in repeated] == [replace(each, pictures=()) for each in plain]


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"most": 0}, {"exponent": -1.0}])
def test_what_does_not_fit_is_refused_with_its_key(wrong: dict[str, float]) -> None:
    spec = replace(SPEC, repeats=RepeatSpec(**wrong))  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match=rf"repeats\.{next(iter(wrong))}: "):
        spec.check()
