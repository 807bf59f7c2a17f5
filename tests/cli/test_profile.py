"""The command measures, shows and writes; wrong usage is refused before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.profile_file import read_profile
from stage_servers.profiling import profiler
from tests.checkpoints import build_checkpoint
from tests.cli.conftest import RunCli
from tests.stage_servers.profiling.test_profiler import SMALL


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return build_checkpoint(tmp_path / "tiny")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A short plan; threads as they were."""
    monkeypatch.setattr(profiler, "make_plan", lambda _model, _config: replace(SMALL, moved_tokens=(16,)))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_profile_is_measured_shown_and_written(run_cli: RunCli, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "costs.json"
    done = run_cli("profile", "--model", checkpoint, "--device", "cpu", "--threads", 1, "--out", out)
    assert done.exit_code == 0, done.output
    profile = read_profile(out)
    assert (profile.name, profile.model) == ("costs", "tiny")
    for word in ("prefill", "decode", "encode", "kv move", "median error", "written to"):
        assert word in done.output


def test_json_is_the_whole_profile(run_cli: RunCli, checkpoint: Path) -> None:
    words = ("--device", "cpu", "--threads", 1, "--profile-name", "mine", "--json")
    done = run_cli("profile", "--model", checkpoint, *words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["name"] == "mine"
    assert found["origin"] == "measured"


def test_wrong_usage(run_cli: RunCli, model: Path, tmp_path: Path) -> None:
    done = run_cli("profile", "--model", model, "--out", tmp_path / "gone" / "costs.json")
    assert done.exit_code == 2
    assert "is no folder" in done.output
    assert run_cli("profile", "--model", model, "--dtype", "float3").exit_code == 2
    emulated = run_cli("profile", "--model", model, "--device", "emulated:cpu-demo")
    assert emulated.exit_code == 2
    assert "'emulated:cpu-demo' takes its time from a profile, there is nothing to measure" in emulated.output


def test_a_model_that_cannot_be_loaded(run_cli: RunCli, model: Path) -> None:
    done = run_cli("profile", "--model", model, "--device", "cpu")
    assert done.exit_code == 1
    assert "model.safetensors: is no safetensors file" in done.output
