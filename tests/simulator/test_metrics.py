from __future__ import annotations

import pytest

from core.lifecycle import RequestState
from simulator.cache_counts import CacheCounts
from simulator.metrics import meets, spread, summarize
from simulator.result import RequestRecord, RunResult
from simulator.scenario import Target
from simulator.search import best_rate
from simulator.usage import Usage

DONE = RequestRecord(
    "a",
    "text",
    False,
    RequestState.FINISHED,
    100,
    11,
    1.0,
    1.1,
    None,
    1.5,
    2.5,
    num_moves=0,
    num_preemptions=0,
)
TARGET = Target(ttft_s=0.5, tpot_s=0.1)


def result(*records: RequestRecord) -> RunResult:
    usage = {"i0": Usage(encode_s=1.0, step_s=2.0), "i1": Usage()}
    return RunResult(records, (), usage, 10.0, 100, 2, 1, CacheCounts())


def test_both_targets_must_be_met() -> None:
    assert meets(DONE, TARGET, 1.0)
    late, slow = DONE._replace(first_token_s=1.6), DONE._replace(finished_s=2.6)
    assert not meets(late, TARGET, 1.0)
    assert not meets(slow, TARGET, 1.0)
    assert meets(late, TARGET, 2.0)
    assert meets(slow, TARGET, 2.0)
    assert not meets(DONE._replace(state=RequestState.FAILED), TARGET, 9.0)
    assert meets(DONE._replace(output_tokens=1), Target(0.5, 1e-9), 1.0)


def test_a_summary() -> None:
    late = DONE._replace(request_id="b", arrival_s=2.0, first_token_s=4.0, finished_s=5.0)
    found = summarize(result(DONE, late), 5.0, {"text": TARGET}, (1.0, 4.0), price_per_hour=1.8)
    assert found.attained == {1.0: 0.5, 4.0: 1.0}
    assert found.goodput_rps == pytest.approx(0.5)  # one in the two seconds of arrivals
    assert found.throughput_rps == pytest.approx(0.2)
    assert found.latencies["text"].attained == 0.5
    assert found.latencies["text"].ttft_s.p50 == pytest.approx(1.25)
    assert found.latencies["all"].input_s_per_token.mean == pytest.approx(0.0125)
    assert found.latencies["all"].output_s_per_token.mean == pytest.approx((1.5 + 3.0) / 2 / 11)
    assert found.utilisation == {"i0": pytest.approx(0.3), "i1": 0.0}
    assert found.cost_per_1000 == pytest.approx(1000 * 2 * 10 / 3600 * 1.8 / 2)


def test_requests_without_targets_are_an_error() -> None:
    with pytest.raises(KeyError, match="no targets for requests of source text"):
        summarize(result(DONE), 1.0, {"image": TARGET})


def test_percentiles() -> None:
    assert spread([None]).p50 is None
    assert spread([1.0, None, 3.0]).p50 == 2.0
    assert spread(range(101)).p99 == 99.0


def test_the_best_rate_lies_in_the_bracket_that_fails_first() -> None:
    asked: list[float] = []

    def attained(rate: float) -> float:
        asked.append(rate)
        return 1.0 if rate <= 5.3 else 0.0

    assert best_rate(attained, [2, 4, 8, 16], 0.9, 4) == pytest.approx(5.25)
    assert asked == [2, 4, 8, 6, 5, 5.5, 5.25]


def test_the_best_rate_at_the_ends() -> None:
    assert best_rate(lambda _: 1.0, [2, 4], 0.9, 4) == 4
    assert best_rate(lambda _: 0.0, [2, 4], 0.9, 3) == 0.0
    assert best_rate(lambda rate: rate < 1, [2, 4], 0.9, 1) == 0.0
