"""What an instance holds, and that it says so."""

from __future__ import annotations

import pytest

from stage_servers.engine.records import PrefillChunk, StepOutput
from tests.stage_servers.two import Two


async def test_an_instance_tells_what_it_holds(two: Two) -> None:
    instance = two.target.instance
    await instance.check_idle()
    instance.decode(two.moved_spec)
    with pytest.raises(AssertionError, match="decoding"):
        await instance.check_idle()
    await instance.cancel(two.moved_spec.key)
    await instance.check_idle()


async def test_a_prefill_that_was_given_up_while_its_step_ran_leaves_nothing(two: Two) -> None:
    step = StepOutput(prefilled=(PrefillChunk(("given up", 1), 0, 8),))
    two.target.instance._steps.step_done(step, 0)
    await two.target.instance.check_idle()
