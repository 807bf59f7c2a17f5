from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import build_checkpoint


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build_checkpoint(tmp_path_factory.mktemp(name), name) for name in ("first", "second")}


@pytest.fixture(params=["first", "second"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]
