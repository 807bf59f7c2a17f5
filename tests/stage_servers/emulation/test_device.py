"""An emulated device is busy as long as a profile says."""

from __future__ import annotations

import pytest

from stage_servers.emulation.device import HOST_SLACK_S, MOST_LATE_S, EmulatedDevice


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def make_device(time: Time, scale: float = 1.0) -> EmulatedDevice:
    return EmulatedDevice(scale, clock=lambda: time.now_s, sleep=time.sleep)


def test_work_takes_its_time(time: Time) -> None:
    make_device(time, scale=2.0).work(0.25)
    assert time.now_s == pytest.approx(100.5)


def test_the_host_works_ahead(time: Time) -> None:
    device = make_device(time)
    device.work(0.1)
    device.note_rest()
    time.now_s += HOST_SLACK_S / 2
    device.work(0.1)
    assert time.now_s == pytest.approx(100.2)


def test_after_idle_time_work_starts_anew(time: Time) -> None:
    device = make_device(time)
    device.work(0.1)
    device.note_rest()
    time.now_s += 0.05
    device.work(0.1)
    assert time.now_s == pytest.approx(100.25)
    device.work(0.1)  # the rest is over
    assert time.now_s == pytest.approx(100.35)


def test_work_without_a_rest_before_it_begins_when_the_last_one_ended(time: Time) -> None:
    device = make_device(time)
    device.work(0.1)
    time.now_s += 0.05  # the host was busy elsewhere
    device.work(0.1)
    assert time.now_s == pytest.approx(100.2)


def test_a_host_that_stood_still_leaves_its_device_behind(time: Time) -> None:
    device = make_device(time)
    device.work(0.1)
    time.now_s += 2 * MOST_LATE_S
    device.work(0.1)
    assert time.now_s == pytest.approx(100.2 + 2 * MOST_LATE_S)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_none_is_refused(time: Time, scale: float) -> None:
    with pytest.raises(ValueError, match="time_scale"):
        make_device(time, scale)
