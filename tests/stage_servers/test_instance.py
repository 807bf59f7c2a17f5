"""What an instance holds, and that it says so."""

from __future__ import annotations

import asyncio

import pytest

from stage_servers.engine.records import PrefillChunk, StepOutput, TokenOutput
from tests.stage_servers.two import Two


async def test_an_instance_tells_what_it_holds(two: Two) -> None:
    instance = two.target.instance
    await instance.check_idle()
    assert instance.is_idle
    instance.decode(two.moved_spec)
    assert not instance.is_idle
    with pytest.raises(AssertionError, match="decoding"):
        await instance.check_idle()
    await instance.cancel(two.moved_spec.key)
    await instance.check_idle()
    assert instance.is_idle


async def test_a_prefill_that_was_given_up_while_its_step_ran_leaves_nothing(two: Two) -> None:
    step = StepOutput(prefilled=(PrefillChunk(("given up", 1), 0, 8),))
    two.target.instance._steps.step_done(step, 0)
    await two.target.instance.check_idle()


async def test_a_step_that_cannot_be_told_of_ends_the_instance(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = two.target.instance

    def fail() -> None:
        raise ValueError("no load")

    monkeypatch.setattr(instance._steps, "_load", fail)
    instance.decode(two.moved_spec)
    token = TokenOutput(two.moved_spec.key, 0, 5)
    instance._on_step(StepOutput(tokens=(token,)))
    with pytest.raises(ValueError, match="no load"):
        await asyncio.wait_for(asyncio.shield(instance.crashed), 30)
    await instance.cancel(two.moved_spec.key)
