"""Demand is that of work: steady streams give their rate, bursts raise it at once and pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.forecast import DecayedMean, Forecast


def steady(
    forecast: Forecast | DecayedMean, work_s: float, gap_s: float, start_s: float, end_s: float
) -> None:
    for number in range(int((end_s - start_s) / gap_s)):
        forecast.note(work_s, start_s + number * gap_s)


@given(rate=st.floats(0.01, 50), gap_s=st.floats(0.02, 0.5), start_s=st.floats(0, 1e6))
def test_a_steady_stream_gives_its_rate(rate: float, gap_s: float, start_s: float) -> None:
    forecast = Forecast()
    steady(forecast, rate * gap_s, gap_s, start_s, start_s + 60)
    assert forecast.demand(start_s + 60) == pytest.approx(rate, rel=0.15)


@given(burst=st.floats(1, 1000))
def test_a_burst_shows_at_once_is_remembered_and_passes(burst: float) -> None:
    forecast = Forecast(mean_s=5, window_s=60)
    steady(forecast, 0.1, 0.1, 0, 60)
    before = forecast.demand(60)
    for number in range(100):
        forecast.note(0.1 + burst / 10, 60 + number / 10)
    assert forecast.demand(70) >= before + 0.8 * burst
    assert forecast.demand(90) > before + 0.5 * burst
    assert forecast.mean(90) < before + 0.1 * burst
    assert forecast.demand(200) < 0.01 * before


@given(mean_s=st.floats(1, 60), rate=st.floats(0.1, 50))
def test_what_is_averaged_over_longer_keeps_its_mean_and_rises_more_slowly(
    mean_s: float, rate: float
) -> None:
    quick, slow, end_s = DecayedMean(mean_s), DecayedMean(mean_s), 400 + mean_s
    for each in (quick, slow):
        steady(each, rate * 0.1, 0.1, 0, 400)
    slow.average_over(2 * mean_s)
    assert slow.at(400) == pytest.approx(quick.at(400), rel=0.06)  # since the last, 0.1 s have decayed
    for each in (quick, slow):
        steady(each, rate, 0.1, 400, end_s)
    assert rate < slow.at(end_s) < 0.85 * quick.at(end_s)


def test_one_arrival_is_seen_without_waiting_for_a_sample() -> None:
    forecast = Forecast(mean_s=5)
    forecast.note(10, 3.0)
    assert forecast.demand(3.0) == 2.0


def test_a_token_storm_shows_at_a_constant_request_rate() -> None:
    forecast = Forecast()
    steady(forecast, 0.05, 0.5, 0, 60)
    before = forecast.demand(60)
    steady(forecast, 0.8, 0.5, 60, 75)
    assert forecast.demand(75) > 8 * before


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 300)), max_size=50))
def test_demand_is_never_negative_nor_below_the_mean(arrivals: list[tuple[float, float]]) -> None:
    forecast, now_s = Forecast(), 0.0
    for work_s, gap_s in arrivals:
        now_s += gap_s
        forecast.note(work_s, now_s)
        assert forecast.demand(now_s) >= forecast.mean(now_s) >= 0


def test_nothing_arrived() -> None:
    assert Forecast().demand(5.0) == Forecast().mean(5.0) == 0.0


def test_a_day_of_silence_takes_no_longer_than_a_window() -> None:
    forecast = Forecast(window_s=10, sample_s=1)
    forecast.note(1, 0)
    forecast.note(1, 1e15)
    assert len(forecast._samples) == 10
    assert forecast.demand(1e15) == pytest.approx(1 / 5)
