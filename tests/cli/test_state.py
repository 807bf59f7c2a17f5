import json
from pathlib import Path

import pytest

from cli.state import AlreadyUpError, ClusterRecord, ProcessRecord, StateDir, find_state_dir


def record() -> ClusterRecord:
    return ClusterRecord("default_1", "127.0.0.1:1", "/model", "coupled", (ProcessRecord("up", 1, 2),))


def test_only_the_user_may_look_inside(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "a" / "b")
    state.acquire()
    assert state.path.stat().st_mode & 0o777 == 0o700
    state.release()


def test_one_cluster_at_a_time(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path), StateDir(tmp_path)
    first.acquire()
    with pytest.raises(AlreadyUpError, match=str(tmp_path)):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_record_round_trip(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.read_record() is None
    state.write_record(record())
    assert state.read_record() == record()
    state.clear()
    assert state.read_record() is None


@pytest.mark.parametrize("content", ["garbage", "{}", "[]", '{"processes": [], "colour": "red"}', '"text"'])
def test_what_is_no_record_is_named(tmp_path: Path, content: str) -> None:
    state = StateDir(tmp_path)
    state.record_path.write_text(content)
    with pytest.raises(ValueError, match=r"cluster\.json: is no record of a cluster"):
        state.read_record()


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    earlier = record().to_json()
    del earlier["http"], earlier["tls"]
    state.record_path.write_text(json.dumps(earlier))
    assert state.read_record() == record()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"^state-dir: {path}: "):
            StateDir(path).acquire()


def test_folder_given_named_or_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_state_dir(Path("x")).path == Path("x")
    assert find_state_dir(None, "two").path == tmp_path / "elasticmm" / "two"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert find_state_dir(None).path == tmp_path / "state" / "elasticmm" / "default"
