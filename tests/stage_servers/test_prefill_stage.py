"""A hand-over that fails is reported as what may be tried elsewhere, and leaves nothing here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc

from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.errors import TransferError
from kv_transfer.sender import PeerAddress
from stage_servers.engine.records import TokenOutput
from stage_servers.prefill_stage import PrefillStage
from stage_servers.reports import Reports

SPEC = SequenceSpec("req", 0, (1, 2, 3), SamplingParams(max_tokens=4))
DECODE = PeerAddress("d-0", "127.0.0.1:1", "host", 1)


class Engine:
    def __init__(self) -> None:
        self.added: list[SequenceSpec] = []
        self.aborted: list[tuple[str, int]] = []

    def add_prefill(
        self, spec: SequenceSpec, *, hand_over: bool, promised_tokens: int, matcher: object
    ) -> None:
        assert (hand_over, promised_tokens, matcher) == (True, 0, None)
        self.added.append(spec)

    def abort(self, key: tuple[str, int]) -> bool:
        self.aborted.append(key)
        return True


class Thread:
    def post(self, call: Callable[[], object]) -> None:
        call()

    async def call(self, function: Callable[[], Any]) -> Any:
        return function()


class Kv:
    layout = SimpleNamespace(num_planes=2)


class Outgoing:
    transport = "shm"

    def __init__(self) -> None:
        self.is_aborted = False

    async def commit(self, num_tokens: int, outputs: tuple[int, ...]) -> None:
        assert (num_tokens, outputs) == (3, (7,))
        raise TransferError("CHECKSUM", "commit refused: DATA_LOSS: 1 of 1 blocks")

    async def abort(self, reason: str) -> None:
        del reason
        self.is_aborted = True


class Sender:
    def __init__(self) -> None:
        self.outgoing = Outgoing()

    async def open(self, *_: object) -> Outgoing:
        return self.outgoing


async def test_a_checksum_that_differs_is_unavailable() -> None:
    engine, sender, reports = Engine(), Sender(), Reports()
    stage = PrefillStage(engine, Thread(), Kv(), sender, reports)  # type: ignore[arg-type]
    running = asyncio.create_task(stage.run(SPEC, DECODE))
    while not engine.added:
        await asyncio.sleep(0)
    stage.first_token(TokenOutput(SPEC.key, 0, 7, handed_over=True))
    await running
    assert (await reports.next()).HasField("stage")
    failure = (await reports.next()).failure
    assert (failure.code, failure.request_id) == (grpc.StatusCode.UNAVAILABLE.value[0], "req")
    assert "DATA_LOSS" in failure.message
    assert SPEC.key not in stage
    assert engine.aborted == [SPEC.key]
    assert sender.outgoing.is_aborted
