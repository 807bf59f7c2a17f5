from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stage_servers.config import StageConfig
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from tests.checkpoints import build_checkpoint


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("profiled"))


@pytest.fixture(scope="session")
def config(folder: Path) -> StageConfig:
    return StageConfig(
        folder, coordinator="", token="profile", max_sequences=8, chunk_tokens=128, kv_blocks=64
    )


@pytest.fixture(scope="session")
def model(folder: Path) -> Iterator[Model]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(folder)
    torch.set_num_threads(before)
