from pathlib import Path

import pytest

from cli.endpoint import Endpoint, find_endpoint, find_token
from cli.state import ClusterRecord, StateDir
from core.access import write_token


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDir:
    monkeypatch.delenv("ELASTICMM_TOKEN", raising=False)
    state = StateDir(tmp_path)
    state.write_record(ClusterRecord("c", "127.0.0.1:7", "/m", "coupled", (), http="http://127.0.0.1:8"))
    write_token(state.token_path, "ours")
    return state


def test_takes_the_cluster_written_down(state: StateDir) -> None:
    written = Endpoint("127.0.0.1:7", "ours", http="http://127.0.0.1:8", model=Path("/m"))
    assert find_endpoint(state, None) == written


def test_keeps_the_token_from_other_addresses(state: StateDir) -> None:
    assert find_endpoint(state, "elsewhere:1") == Endpoint("elsewhere:1", None)


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:0", "host:99999", "http://host:1", "host:grpc"]
)
def test_what_is_no_address_is_named(state: StateDir, address: str) -> None:
    with pytest.raises(ValueError, match=f"address: '{address}' is not HOST:PORT"):
        find_endpoint(state, address)


@pytest.mark.parametrize("address", ["h:1", "127.0.0.1:65535", "[::1]:1", "unix:/run/x", "dns:///h:1"])
def test_what_is_an_address(state: StateDir, address: str) -> None:
    assert find_endpoint(state, address).address == address


def test_falls_back_to_the_default_port(tmp_path: Path) -> None:
    assert find_endpoint(StateDir(tmp_path / "none"), None).address == "127.0.0.1:50051"


def test_file_goes_before_environment(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "from-environment")
    assert find_token(None, state) == "from-environment"
    write_token(tmp_path / "other", "from-file")
    assert find_token(tmp_path / "other", state) == "from-file"


def test_a_missing_token_file_is_named(state: StateDir) -> None:
    with pytest.raises(ValueError, match="token-file: .*/no/such"):
        find_token(Path("/no/such"), state)
