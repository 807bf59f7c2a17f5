"""Answers through fake stages: every topology gives the same stream."""

from __future__ import annotations

import pytest

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import MakeBench, picture
from tests.coordinator.fake_stage import fake_token

TOPOLOGIES = [("epd",), ("e", "p", "d"), ("ep", "d"), ("e", "pd"), ("e", "p", "p", "d", "d"), ("epd", "epd")]


@pytest.mark.parametrize("roles", TOPOLOGIES, ids="+".join)
async def test_text(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    bench = await make_bench(*roles)
    answer = await bench.ask(text="hi", max_tokens=20, seed=5)
    assert answer.accepted.seed == 5
    assert answer.token_ids == [fake_token(5, index) for index in range(20)]
    assert answer.finished.reason == pb.FINISH_REASON_LENGTH
    assert answer.finished.usage.completion_tokens == 20
    assert {span.stage for span in answer.finished.stages} == {pb.STAGE_PREFILL, pb.STAGE_DECODE}
    await bench.assert_idle()


@pytest.mark.parametrize("roles", TOPOLOGIES, ids="+".join)
async def test_pictures(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    bench = await make_bench(*roles, gateway=True)
    images = (pb.ImagePart(data=picture()), pb.ImagePart(data=picture("JPEG")))
    answer = await bench.ask(text="what?", images=images, max_tokens=5, seed=2)
    assert answer.token_ids == [fake_token(2, index) for index in range(5)]
    stages = [span.stage for span in answer.finished.stages]
    assert sorted(stages) == [pb.STAGE_ENCODE, pb.STAGE_ENCODE, pb.STAGE_PREFILL, pb.STAGE_DECODE]
    assert answer.finished.usage.media_tokens > 0
    await bench.assert_idle()
