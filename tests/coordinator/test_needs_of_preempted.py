"""One that was preempted asks for pictures that it was spared, or that its decoder never saw."""

from __future__ import annotations

from coordinator.stage_messages import (
    CancelCommand,
    FailureReport,
    MigrationReport,
)
from core.lifecycle import RequestState
from core.stages import Stage
from tests.coordinator.hinted import LOCAL, SKIPPED, Scene, encodes, placed, started


async def test_one_that_was_preempted_asks_for_what_it_was_spared() -> None:
    scene = Scene(LOCAL)
    started(scene)
    scene.need(1)
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([], [1])
    assert scene.request.state is RequestState.DECODING
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 1
    scene.need(1)  # is being encoded
    assert not encodes(scene, "e1")
    scene.done("e1", Stage.ENCODE, 1)
    assert scene.dispatcher.books.instances["e1"].load.encode_items == 0
    usage = (await scene.finish()).usage
    assert (usage.cached_tokens, usage.cached_media) == (48, 2)  # of what its first token took


async def test_who_encodes_for_one_that_was_preempted_may_die() -> None:
    scene = Scene(LOCAL, placed(encode=("h0", "h0")))
    started(scene)
    scene.need(0)
    scene.lose("e1")
    assert scene.request.num_attempts == 1
    scene.lose("e0")
    assert (scene.request.num_attempts, scene.request.recalled) == (2, set())


async def test_who_encodes_for_one_that_was_preempted_may_fail() -> None:
    scene = Scene(LOCAL, placed())
    started(scene)
    scene.need(0)
    failure = FailureReport("r", scene.request.attempt, Stage.ENCODE, 0, 14, "the gateway is gone")
    scene.dispatcher.take_failure(scene.instance("e0"), failure)
    assert scene.request.state is RequestState.QUEUED


async def test_one_that_goes_on_without_what_it_asked_for_waits_for_nobody() -> None:
    """The cache had the prefix again."""
    scene = Scene(LOCAL)
    started(scene)
    scene.need(0)
    scene.token("p0")
    scene.lose("e0")
    assert scene.request.num_attempts == 1
    assert scene.request.is_decoding
    await scene.finish()


async def test_one_that_decodes_elsewhere_and_was_preempted_asks_for_all() -> None:
    scene = Scene(SKIPPED)
    scene.done("p0", Stage.PREFILL, cached_tokens=48)
    scene.token("p0")
    scene.token("d0")
    scene.need(0, 1, name="d0")
    assert (encodes(scene, "e0", "d0"), encodes(scene, "e1", "d0")) == ([0], [1])
    assert not scene.request.is_decoding
    scene.need(0, 1, name="d0")  # are being encoded
    assert not encodes(scene, "e0", "d0")
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index, cached_tokens=4)
    assert scene.request.is_decoding
    usage = (await scene.finish()).usage
    assert (usage.cached_tokens, usage.cached_media) == (48, 2)


async def test_what_was_encoded_for_it_and_is_sent_again_is_not_counted_as_cached() -> None:
    scene = Scene(placed())
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    started(scene, "d0")
    assert (encodes(scene, "e0"), encodes(scene, "e1")) == ([0], [1])
    scene.need(1, name="d0")
    assert (encodes(scene, "e0", "d0"), encodes(scene, "e1", "d0")) == ([], [1])
    scene.done("e1", Stage.ENCODE, 1, cached_tokens=4)
    assert (await scene.finish()).usage.cached_media == 0


async def test_who_decodes_encodes_itself_where_the_encoder_is_gone() -> None:
    scene = Scene(placed())
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    started(scene, "d0")
    scene.lose("e0")
    scene.need(0, 1, name="d0")
    assert (encodes(scene, "d0", "d0"), scene.request.num_attempts) == ([0], 1)
    scene.lose("e1")  # which sends the other one
    assert (scene.request.num_attempts, scene.request.state) == (1, RequestState.QUEUED)


async def test_who_decodes_may_ask_before_the_first_token_is_heard_of() -> None:
    """The prefill instance's word of it comes later; it ends nobody's waiting."""
    scene = Scene(placed(), placed(encode=("h0", "h0")))
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    encodes(scene, "e1")
    scene.need(1, name="d0")
    assert encodes(scene, "e1", "d0") == [1]
    scene.done("p0", Stage.PREFILL)
    scene.token("p0")
    assert scene.request.recalled == {1}
    scene.lose("e1")
    assert scene.request.num_attempts == 2


async def test_the_prefill_instance_has_nothing_to_ask_for_once_it_handed_over() -> None:
    scene = Scene(SKIPPED)
    started(scene, "d0")
    scene.need(0, name="p0")
    assert not encodes(scene, "e0")
    await scene.finish()


async def test_the_target_of_a_move_may_ask_before_the_source_says_that_it_moved() -> None:
    scene = Scene(placed())
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    started(scene, "d0")
    encodes(scene, "e0")
    moving = scene.dispatcher.migrate("r", "h0")
    assert scene.request.migration is not None
    attempt = scene.request.migration.new_attempt
    scene.need(0, attempt=attempt, name="h0")
    assert encodes(scene, "e0", "h0", attempt) == [0]
    report = MigrationReport("r", scene.request.attempt, attempt, True)
    scene.dispatcher.take_migration(scene.instance("d0"), report)
    assert (await moving).has_moved
    assert scene.request.recalled == {0}
    scene.done("e0", Stage.ENCODE, 0, cached_tokens=4)
    assert (await scene.finish()).usage.cached_media == 0


async def test_one_that_came_back_to_where_it_was_prefilled_asks_for_all() -> None:
    """Its embeddings went when it left."""
    scene = Scene(placed(prefill="h0", decode="h0"))
    encodes(scene, "e0", "h0")
    for index in range(2):
        scene.done(f"e{index}", Stage.ENCODE, index)
    scene.done("h0", Stage.PREFILL)
    for _ in range(2):
        scene.token("h0")
    for source, target in (("h0", "d0"), ("d0", "h0")):
        moving = scene.dispatcher.migrate("r", target)
        assert scene.request.migration is not None
        report = MigrationReport("r", scene.request.attempt, scene.request.migration.new_attempt, True)
        scene.dispatcher.take_migration(scene.instance(source), report)
        assert (await moving).has_moved
    scene.need(0, name="h0")
    assert encodes(scene, "e0", "h0") == [0]
    scene.done("e0", Stage.ENCODE, 0)
    await scene.finish()


async def test_an_encoder_still_at_work_hears_of_the_end() -> None:
    scene = Scene(placed())
    scene.done("p0", Stage.PREFILL, cached_tokens=96)
    scene.token("p0")
    scene.token("d0", is_last=True)
    assert scene.sent("e0", CancelCommand)
