from pathlib import Path

import pytest

from cli.devices import choose_device, choose_devices
from tests.cli.conftest import RunCli


def test_several_devices_are_named_with_commas() -> None:
    assert choose_devices("cuda:0, cuda:2") == ("cuda:0", "cuda:2")
    assert choose_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("wanted", ["", "cpu,", ",cpu"])
def test_an_empty_place_is_no_device(wanted: str) -> None:
    with pytest.raises(ValueError, match="device: .* names no device"):
        choose_devices(wanted)


def test_one_stage_server_takes_one_device() -> None:
    with pytest.raises(ValueError, match="device: one stage server takes one device, not 'cpu,cpu'"):
        choose_device("cpu,cpu")


def test_up_names_the_profiles_that_differ(run_cli: RunCli, model: Path) -> None:
    told = run_cli("up", "--model", model, "--device", "emulated:cpu-demo,emulated:cpu-120m")
    assert told.exit_code == 2
    assert "cpu-demo and cpu-120m" in told.stderr
