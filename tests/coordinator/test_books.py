"""What an answer takes beyond what was expected of it is booked when it begins another block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.books import LiveBooks
from coordinator.dispatcher import Dispatcher
from coordinator.policy.cost_model import CostModel
from coordinator.registry import Instance
from core.clock import ManualClock
from core.stages import Stage
from tests.coordinator.hinted import Scene, placed
from tests.coordinator.instances import make_instance
from tests.quick_profile import make_profile


def booked_blocks(dispatcher: Dispatcher, name: str) -> int:
    return dispatcher.books.instances[name].load.kv_blocks


async def test_blocks_are_booked_as_an_answer_outgrows_its_reserve() -> None:
    scene = Scene(placed())
    request, block_tokens = scene.request, scene.instance("d0").info.block_tokens
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    scene.done("p0", Stage.PREFILL)
    scene.token("p0")
    before = booked_blocks(scene.dispatcher, "d0")
    while request.num_outputs < 40:
        scene.token("d0")
        promised = len(request.prompt) + max(request.reserve_tokens, request.num_outputs + 1)
        assert booked_blocks(scene.dispatcher, "d0") == -(-promised // block_tokens)
    assert booked_blocks(scene.dispatcher, "d0") > before + 1
    await scene.finish()


@pytest.mark.parametrize(("told", "known"), [(0, None), (64, 64)])
def test_a_batch_is_bounded_where_the_instance_tells_by_what(told: int, known: int | None) -> None:
    books = LiveBooks(ManualClock(), CostModel(make_profile()))
    books.attach(Instance(replace(make_instance("d0").info, max_sequences=told), now_s=0.0))
    assert books.books.instances["d0"].max_sequences == known
