from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Question, make_question


@dataclass(frozen=True)
class Pair:
    """Our model and transformers' of one folder."""

    path: Path
    model: Model
    oracle: Oracle
    plain_model: Model  # the same without any C++ of ours

    def question(self, seed: int, **shape: object) -> Question:
        return make_question(self.oracle.family, seed, **shape)  # type: ignore[arg-type]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices: a second thread costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    found = {}
    for family in ("first", "second"):
        path = build_checkpoint(tmp_path_factory.mktemp(family), family)
        found[family] = Pair(
            path, load_model(path), Oracle(path), load_model(path, fast_path=False, attention="sdpa")
        )
    return found


@pytest.fixture(params=["first", "second"])
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.fixture
def first(pairs: dict[str, Pair]) -> Pair:
    return pairs["first"]
