"""Embeddings reach the engine once it has the sequence, and none is taken for one that has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch

from kv_transfer.errors import UnknownRequest
from stage_servers.cache.held import HeldEmbedding
from stage_servers.embedding_supply import EmbeddingSupply
from stage_servers.expectations import Expectations
from stage_servers.held import HeldCalls
from stage_servers.reports import Reports

KEY = ("r", 0)
EMBEDDING = torch.zeros(4, 8)


@dataclass
class World:
    """Stands for engine, engine thread and shelf."""

    provided: list[tuple[tuple[str, int], int]] = field(default_factory=list)
    put_away: list[HeldEmbedding] = field(default_factory=list)

    def provide_embedding(self, key: tuple[str, int], item_index: int, _: torch.Tensor) -> None:
        self.provided.append((key, item_index))

    def post(self, call: Callable[[], None]) -> None:
        call()

    def put(self, _: object, held: HeldEmbedding) -> torch.Tensor:
        self.put_away.append(held)
        return held.embedding

    def arrived(self, *_: object) -> torch.Tensor:
        return EMBEDDING


class Scene:
    def __init__(self) -> None:
        self.world, self.reports = World(), Reports()
        self.to_prefill, self.held = Expectations(), HeldCalls()
        world = cast(Any, self.world)
        self.supply = EmbeddingSupply(
            world, world, world, self.reports, to_prefill=self.to_prefill, held=self.held
        )
        self.to_prefill.add(KEY)

    def supply_all(self, let_go: Callable[[], None] = lambda: None) -> None:
        self.supply.arrived(KEY, 0, [1], 4)
        self.supply.lent(KEY, 1, EMBEDDING, let_go)
        self.supply.made_here(KEY, 2, HeldEmbedding(EMBEDDING, let_go))


async def test_all_wait_until_the_engine_has_the_sequence() -> None:
    scene = Scene()
    scene.held.hold(KEY)
    scene.supply_all()
    assert not scene.world.provided
    scene.held.release(KEY)
    assert scene.world.provided == [(KEY, 0), (KEY, 1), (KEY, 2)]
    assert len(scene.world.put_away) == 2


async def test_none_is_taken_for_a_sequence_that_has_ended() -> None:
    scene, released = Scene(), list[int]()
    scene.to_prefill.end(KEY)
    with pytest.raises(UnknownRequest, match="request r has ended here"):
        scene.supply.arrived(KEY, 0, [1], 4)
    with pytest.raises(UnknownRequest, match="request r has ended here"):
        scene.supply.lent(KEY, 1, EMBEDDING, lambda: released.append(1))
    scene.supply.made_here(KEY, 2, HeldEmbedding(EMBEDDING, lambda: released.append(2)))
    assert (scene.world.provided, scene.world.put_away, released) == ([], [], [])


async def test_only_for_one_that_is_here_something_is_asked_for() -> None:
    scene = Scene()
    scene.supply.needed(KEY, (1, 2))
    scene.to_prefill.end(KEY)
    scene.supply.needed(KEY, (0,))
    assert list((await scene.reports.next()).need.item_indices) == [1, 2]
    assert scene.reports._outbox.empty()
