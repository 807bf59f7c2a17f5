from pathlib import Path

import pytest

from cli.checkup.compiler import check_native
from cli.checkup.devices import TorchView, check_gpus
from cli.checkup.finding import Level, note
from cli.checkup.model import check_model, check_room
from cli.checkup.shared_memory import check_left
from cli.checkup.shared_memory import check_room as check_shm
from cli.checkup.versions import check_package, check_versions
from core.compiled import NativeError
from stage_servers.devices import Gpu

MIB, GIB = 1 << 20, 1 << 30
CHECKPOINT = Path("models/demo/checkpoint")


def gpu(index: int, *peers: int, free_bytes: int = 80 * GIB) -> Gpu:
    return Gpu(index, "H", 80 * GIB, free_bytes, 0.0, peers)


def test_versions_here_are_fine() -> None:
    found = list(check_versions())
    assert {each.subject for each in found} >= {"python", "elasticmm", "torch", "transformers", "grpcio"}
    assert all(each.level is Level.OK for each in found)


def test_a_package_that_is_too_old_or_missing() -> None:
    old = check_package("numpy", (99, 1))
    assert (old.level, old.mend) == (Level.PROBLEM, "pip install 'numpy>=99.1'")
    assert "is not installed" in check_package("no-such-package-of-ours", (1,)).said


def test_a_torch_that_sees_less_than_the_driver() -> None:
    (unbuilt, *_) = check_gpus([gpu(0)], TorchView(None, 0))
    assert (unbuilt.level, "without CUDA" in unbuilt.said) == (Level.PROBLEM, True)
    (hidden, *_) = check_gpus([gpu(0, 1), gpu(1, 0)], TorchView("13.0", 1))
    assert "CUDA_VISIBLE_DEVICES" in hidden.mend
    (broken,) = check_gpus([], TorchView(None, 0, "libc10.so: no such file"))
    assert "libc10.so" in broken.said


def test_gpus_that_are_busy_or_no_peers() -> None:
    found = list(check_gpus([gpu(0), gpu(1, free_bytes=GIB)], TorchView("13.0", 2)))
    assert [(each.subject, each.level) for each in found] == [
        ("CUDA", Level.OK),
        ("GPU 0", Level.OK),
        ("GPU 1", Level.NOTE),
        ("peer access", Level.NOTE),
    ]
    assert "0-1" in found[-1].said
    assert list(check_gpus([gpu(0, 1), gpu(1, 0)], TorchView("13.0", 2)))[-1].level is Level.OK


@pytest.mark.parametrize(
    ("free_mib", "level"), [(10, Level.PROBLEM), (64, Level.PROBLEM), (512, Level.NOTE), (4096, Level.OK)]
)
def test_room_in_shared_memory(free_mib: int, level: Level) -> None:
    assert check_shm(8192 * MIB, free_mib * MIB).level is level


def test_left_segments_are_named_in_the_mend(tmp_path: Path) -> None:
    assert check_left([]).level is Level.OK
    (tmp_path / "left").write_bytes(bytes(MIB))
    found = check_left([tmp_path / "left"])
    assert found.said == "1 of dead processes hold 1.0 MiB"
    assert found.mend == f"rm {tmp_path / 'left'}"


def test_without_a_compiler() -> None:
    def refuse() -> Path:
        raise NativeError("no C++ compiler is here")

    found = check_native("native steps", refuse)
    assert (found.level, "g++" in found.mend) == (Level.NOTE, True)


def test_the_demo_model_and_none() -> None:
    found = list(check_model(CHECKPOINT))
    assert [each.subject for each in found] == ["model", "room for weights"]
    assert found[0].level is Level.OK
    (missing,) = check_model(Path("nowhere"))
    assert (missing.level, "nowhere" in missing.said) == (Level.PROBLEM, True)


@pytest.mark.parametrize(("size_gib", "level"), [(90, Level.PROBLEM), (50, Level.NOTE), (30, Level.OK)])
def test_room_for_weights(size_gib: int, level: Level) -> None:
    assert check_room(size_gib * GIB, 80 * GIB).level is level


def test_what_is_not_fine_needs_a_mend() -> None:
    with pytest.raises(AssertionError):
        note("x", "is odd", "")
