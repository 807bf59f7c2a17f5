"""Rates and added times from what was noted."""

from array import array

import pytest

from benchmarks.doors.client import Window
from benchmarks.doors.figures import added_ms, stream_figures
from benchmarks.doors.instances import StepTimes
from benchmarks.front import best_single

WINDOW = Window(
    seconds=2.0,
    streams=array("i", [0, 1, 0]),
    first_index=array("i", [0, 0, 1]),
    num_tokens=array("i", [1, 1, 2]),
    at_s=array("d", [10.5, 11.5, 13.0]),
    front_cpu_s=1.0,
)


def test_rates_and_tokens_per_message() -> None:
    figures = stream_figures(WINDOW)
    assert (figures["messages_per_s"], figures["tokens_per_s"]) == (1.5, 2.0)
    assert figures["tokens_per_message"] == pytest.approx(4 / 3)
    assert figures["most_tokens_per_message"] == 2
    assert figures["front_cpu_share"] == 0.5


def test_added_time_counts_from_the_step_of_each_token() -> None:
    times = [StepTimes([10.0, 12.0, 12.5], {"a": 0}, 0.0), StepTimes([9.0, 11.0], {"b": 1}, 0.0)]
    values = added_ms(WINDOW, ["a", "b"], times)
    assert values["mean"] == pytest.approx((500 + 500 + 1000 + 500) / 4)


def test_the_best_rate_is_one_whose_tokens_come_singly() -> None:
    rates = [
        {"tokens_per_message": each, "messages_per_s": rate} for each, rate in ((1.0, 5), (1.04, 9), (2, 20))
    ]
    assert best_single(rates)["messages_per_s"] == 9
