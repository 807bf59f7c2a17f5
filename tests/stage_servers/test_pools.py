"""Pools on a GPU are sized from its memory, and leave room for the others that live on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stage_servers.config import StageConfig
from stage_servers.pools import pool_sizes

GIB = 1 << 30
BLOCK_BYTES = 16 * 4 * 1024 * 2
MODEL: Any = SimpleNamespace(
    device=torch.device("cuda", 0),
    dtype=torch.bfloat16,
    kv_planes=4,
    kv_token_elements=1024,
    context_tokens=4096,
)


def config(**settings: Any) -> StageConfig:
    return StageConfig(model=Path("m"), coordinator="c:1", token="t", device="cuda:0", **settings)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Of a card of 80 GiB, that holds 4 GiB of weights of this process."""
    found = {"free": 75 * GIB, "own": 4 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (found["free"], 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: found["own"])
    return found


def test_alone_it_takes_most_of_what_is_free(memory: dict[str, int]) -> None:
    assert pool_sizes(MODEL, config()).kv_blocks == int(memory["free"] * 0.8) // BLOCK_BYTES


def test_with_others_it_keeps_to_its_share_whoever_comes_first(memory: dict[str, int]) -> None:
    found = []
    for free in (75, 55, 35, 20):  # four start one after the other
        memory["free"] = free * GIB
        found.append(pool_sizes(MODEL, config(device_share=0.25)).kv_blocks)
    assert found == [int((20 - 4) * GIB * 0.8) // BLOCK_BYTES] * 4


def test_a_pool_under_one_context_is_told_of(
    memory: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    memory["free"] = 100 * BLOCK_BYTES
    assert pool_sizes(MODEL, config()).kv_blocks == 80
    assert "KV has room for 1280 tokens, a context of 4096" in caplog.text


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_no_room_is_an_error(memory: dict[str, int], share: float) -> None:
    memory["free"] = 0 if share == 1 else 60 * GIB
    with pytest.raises(ValueError, match="device: cuda:0 has 0 MiB for KV beside the weights"):
        pool_sizes(MODEL, config(device_share=share))


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(ValueError, match="device_share: is above 0 and at most 1"):
        config(device_share=share)
