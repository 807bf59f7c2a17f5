"""What an answer takes beyond what was expected of it is booked when it begins another block."""

from __future__ import annotations

from coordinator.dispatcher import Dispatcher
from core.stages import Stage
from tests.coordinator.hinted import Scene, placed


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
