"""GetTokens: how single tokens read."""

from __future__ import annotations

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, failure_of


async def test_tokens_of_a_text(bench: Bench) -> None:
    ids = bench.coordinator.door.tokenizer.encode("näher 図")
    response = await bench.inference.GetTokens(pb.GetTokensRequest(ids=[*ids, 2**32 - 1]))
    assert b"".join(response.texts) == "näher 図".encode()
    assert len(response.texts) == len(ids) + 1


async def test_so_many_at_once(bench: Bench) -> None:
    assert len((await bench.inference.GetTokens(pb.GetTokensRequest(ids=[0] * 2048))).texts) == 2048
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bench.inference.GetTokens(pb.GetTokensRequest(ids=[0] * 2049))
    assert failure_of(caught.value).field == "ids"
