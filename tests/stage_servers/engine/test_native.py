"""The C++ parts: what they compute, and what happens where they cannot be had."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch

from stage_servers.engine import loader
from stage_servers.engine.attention import native
from stage_servers.engine.fused import FusedGatedMlp, FusedNorm, TiledLinear, WholePatches, fuse
from stage_servers.engine.loader import load_model
from stage_servers.engine.native import build
from tests.stage_servers.engine.conftest import Pair


@pytest.fixture
def plain_text(pair: Pair) -> torch.nn.Module:
    return pair.plain_model.family.text_model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_fused_modules_equal_the_models_own(
    plain_text: torch.nn.Module, dtype: torch.dtype, tolerance: float
) -> None:
    own = copy.deepcopy(plain_text).to(dtype)
    fused = copy.deepcopy(own)
    count = fuse(fused, build.load_library())
    kinds = [type(module) for module in fused.modules()]
    own_kinds = (FusedNorm, FusedGatedMlp, TiledLinear)
    assert count == sum(kinds.count(kind) for kind in own_kinds)
    assert kinds.count(FusedGatedMlp) == 3
    assert kinds.count(FusedNorm) >= 7
    assert dict(fused.named_parameters()).keys() == dict(own.named_parameters()).keys()
    x = torch.randn(1, 300, 64).to(dtype)
    for layer, other in zip(own.layers, fused.layers, strict=True):
        for part in ("input_layernorm", "mlp"):
            right = getattr(layer, part)(x)
            assert (right - getattr(other, part)(x)).abs().max() < tolerance * right.abs().max()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33, 200, 256, 257])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_on_tiles_equal_torchs(rows: int, has_bias: bool) -> None:
    own = torch.nn.Sequential(torch.nn.Linear(96, 160, bias=has_bias).bfloat16())
    fused = copy.deepcopy(own)
    has_tiles = bool(build.load_library().has_tiles())
    assert fuse(fused, build.load_library()) == has_tiles
    assert isinstance(fused[0], TiledLinear) == has_tiles
    x = torch.randn(1, rows, 96).bfloat16()
    right, found = own(x), fused(x)
    assert found.shape == right.shape
    assert (found - right).abs().max() < 0.01 * right.abs().max()


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 96), (torch.bfloat16, 80)])
def test_products_that_tiles_cannot_do_stay_torchs(dtype: torch.dtype, width: int) -> None:
    assert not fuse(torch.nn.Sequential(torch.nn.Linear(width, 160).to(dtype)), build.load_library())


def test_patches_are_embedded_as_by_the_models_own_convolution() -> None:
    own = torch.nn.Sequential(torch.nn.Conv3d(3, 24, (2, 14, 14), (2, 14, 14), bias=False))
    fused = copy.deepcopy(own)
    assert fuse(fused, build.load_library()) == 1
    assert isinstance(fused[0], WholePatches)
    x = torch.randn(10, 3, 2, 14, 14)
    assert torch.allclose(fused(x), own(x), atol=1e-5)


def test_a_machine_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.NativeError, match="no C\\+\\+ compiler"):
        build.ensure_built()


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(build.NativeError, match="false failed"):
        build.ensure_built()
    assert not list(tmp_path.rglob("*.so"))


def test_a_cache_that_others_may_write_to_is_not_loaded_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elasticmm").mkdir()
    (tmp_path / "elasticmm").chmod(0o777)
    with pytest.raises(build.NativeError, match="can be written to by others"):
        build.ensure_built()


def test_models_load_without_it_and_say_so(
    first: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise build.NativeError("no compiler today")

    for module in (loader, native):
        monkeypatch.setattr(module, "load_library", refuse)
    with caplog.at_level(logging.WARNING):
        model = load_model(first.path)
    assert model.fast_path is None
    assert model.attention_backend == "sdpa"
    assert "no compiler today" in caplog.text
