"""A port that is taken is said before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan
from cli.launch.ports import check_ports, why_taken
from cli.launch.supervisor import Programs, Supervisor
from cli.state import StateDir


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("setting", ["port", "http_port", "metrics_port"])
def test_a_port_that_is_taken_is_named_with_its_option(model: Path, taken: int, setting: str) -> None:
    option = f"--{setting.replace('_', '-')}"
    with pytest.raises(LaunchError, match=f"127.0.0.1:{taken}: Address already in use .* {option} or"):
        check_ports(LaunchPlan("c", model, **{setting: taken}))  # type: ignore[arg-type]


def test_free_ones_pass(model: Path, taken: int) -> None:
    check_ports(LaunchPlan("c", model, port=0, http_port=None, metrics_port=0))
    assert why_taken("0.0.0.0", 0) is None
    assert why_taken("192.0.2.1", 1025) == "Cannot assign requested address"
    assert why_taken("127.0.0.1", taken) == "Address already in use"


def test_nothing_is_started_then(model: Path, tmp_path: Path, taken: int) -> None:
    state = StateDir(tmp_path / "state")
    state.acquire()
    programs = Programs(stages=("false",), coordinator=("false",))
    supervisor = Supervisor(LaunchPlan("c", model, port=taken), state, programs)
    with pytest.raises(LaunchError, match="--port"):
        supervisor.start(lambda event: pytest.fail(f"started {event.part}"))
    assert supervisor.stop() == []
    state.release()
