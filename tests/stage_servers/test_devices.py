"""Devices are named as status shows them."""

from __future__ import annotations

import os

import pytest

from stage_servers import devices


@pytest.mark.parametrize(
    ("cores", "name"), [((0,), "cpu:0"), ((0, 1), "cpu:0-1"), ((0, 1, 2, 5, 7, 8), "cpu:0-2,5,7-8")]
)
def test_cpu_names(cores: tuple[int, ...], name: str) -> None:
    assert devices.device_name("cpu", cores) == name


def test_cores_are_those_of_the_process() -> None:
    assert set(devices.available_cores()) == os.sched_getaffinity(0)


@pytest.mark.gpu
def test_gpus_are_found_with_name_and_memory() -> None:
    gpus = devices.find_gpus()
    if not gpus:
        pytest.skip("no NVIDIA driver")
    assert all(gpu.name and 0 < gpu.free_bytes <= gpu.memory_bytes for gpu in gpus)
    assert devices.device_name("cuda:0", ()).startswith("cuda:0 ")
