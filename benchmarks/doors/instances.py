"""Instances that are played: they attach as stage servers do and report a step's tokens at the wanted pace.

Every step reports one token of each sequence in one message, as a stage server's does. There is no engine
behind it, so one core plays many more tokens a second than emulated stage servers could.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import grpc

from benchmarks.doors.tokens import tokens_to_play
from core.access import token_metadata
from core.families import load_family
from elasticmm.v1 import inference_pb2 as inference
from elasticmm.v1 import stage_control_pb2 as pb
from elasticmm.v1 import stage_control_pb2_grpc as rpc

_KV_BLOCKS = 4_000_000
_ROLES = (inference.STAGE_ENCODE, inference.STAGE_PREFILL, inference.STAGE_DECODE)


@dataclass(frozen=True, slots=True)
class PlaySpec:
    address: str
    token: str
    model: Path
    num_instances: int


@dataclass(frozen=True, slots=True)
class StepTimes:
    """When each token left, by the host's monotonic clock."""

    steps: list[float]
    begun: dict[str, int]  # request id: the step that made its first token
    cpu_s: float  # that all instances have used so far


@dataclass(slots=True)
class _Sequence:
    attempt: int
    max_tokens: int
    num_tokens: int = 0


@dataclass(slots=True)
class _Played:
    """One instance."""

    name: str
    step_s: float | None = None  # None: it makes no tokens but those of requests for one
    offset: float = 0.0  # of a step, so that instances do not report at one moment
    sequences: dict[str, _Sequence] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)
    begun: dict[str, int] = field(default_factory=dict)
    paced: asyncio.Event = field(default_factory=asyncio.Event)
    attached: asyncio.Event = field(default_factory=asyncio.Event)


def run(spec: PlaySpec, pipe: Connection) -> None:
    """A process. It says None once all are attached. Each number that comes is the seconds of a step from now
    on (None: pause), each answer the StepTimes of every instance since the last one. It ends with the pipe.
    """
    import uvloop

    uvloop.run(_play(spec, pipe))


async def _play(spec: PlaySpec, pipe: Connection) -> None:
    tokens = tokens_to_play(spec.model)
    fingerprint = load_family(spec.model).fingerprint
    played = [_Played(f"played{i}", offset=i / spec.num_instances) for i in range(spec.num_instances)]
    async with grpc.aio.insecure_channel(spec.address) as channel:
        attached = [_attach(channel, spec, each, fingerprint, tokens) for each in played]
        tasks = [asyncio.create_task(each) for each in attached]
        told = asyncio.create_task(_obey_parent(played, pipe))
        ended, _ = await asyncio.wait((told, *tasks), return_when=asyncio.FIRST_COMPLETED)
        for task in (told, *tasks):
            task.cancel()
        await asyncio.gather(told, *tasks, return_exceptions=True)
        for task in ended:
            task.result()


async def _obey_parent(played: Sequence[_Played], pipe: Connection) -> None:
    await asyncio.gather(*(each.attached.wait() for each in played))
    pipe.send(None)
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), readable.set)
    while True:
        await readable.wait()
        readable.clear()
        try:
            step_s = pipe.recv()
        except EOFError:
            loop.remove_reader(pipe.fileno())
            return
        pipe.send([StepTimes(each.steps, each.begun, time.process_time()) for each in played])
        for each in played:
            each.steps, each.begun, each.step_s = [], {}, step_s
            each.paced.set()


async def _attach(
    channel: grpc.aio.Channel, spec: PlaySpec, played: _Played, fingerprint: str, tokens: Sequence[int]
) -> None:
    stub = cast("rpc.StageControlAsyncStub", rpc.StageControlStub(channel))
    call = stub.Attach(metadata=token_metadata(spec.token))
    await call.write(pb.StageMessage(register=_register(played.name, fingerprint)))
    commands = aiter(call)
    interval_s = (await anext(commands)).registered.heartbeat_interval_ms / 1e3
    played.attached.set()
    outbox: asyncio.Queue[pb.StageMessage] = asyncio.Queue()
    await asyncio.gather(
        _obey(commands, played, outbox, tokens),
        _beat(interval_s, outbox),
        _step_forever(played, outbox, tokens),
        _write(call, outbox),
    )


def _register(name: str, fingerprint: str) -> pb.Register:
    return pb.Register(
        instance_id=name,
        epoch=time.time_ns(),
        roles=_ROLES,
        group=pb.MODALITY_GROUP_SHARED,
        endpoint="127.0.0.1:1",
        host_id="played",
        model_fingerprint=fingerprint,
        dtype="float32",
        device="played",
        attention_backend="played",
        block_tokens=16,
        total_kv_blocks=_KV_BLOCKS,
        total_embedding_blocks=_KV_BLOCKS,
    )


async def _obey(
    commands: AsyncIterator[pb.CoordinatorMessage],
    played: _Played,
    outbox: asyncio.Queue[pb.StageMessage],
    tokens: Sequence[int],
) -> None:
    async for message in commands:
        kind = message.WhichOneof("message")
        if kind == "prefill":
            _begin(message.prefill.sequence, played, outbox, tokens)
        elif kind == "cancel":
            played.sequences.pop(message.cancel.request_id, None)


def _begin(
    sequence: pb.Sequence, played: _Played, outbox: asyncio.Queue[pb.StageMessage], tokens: Sequence[int]
) -> None:
    now_ns = time.time_ns()
    report = pb.StageReport(
        request_id=sequence.request_id,
        attempt=sequence.attempt,
        stage=inference.STAGE_PREFILL,
        start_ns=now_ns,
        end_ns=now_ns,
    )
    outbox.put_nowait(pb.StageMessage(stage=report))
    begun = _Sequence(sequence.attempt, sequence.sampling.max_tokens)
    if begun.max_tokens == 1:
        made = _tokens_of(sequence.request_id, begun, tokens[0])
        outbox.put_nowait(pb.StageMessage(step=pb.StepReport(sequences=[made])))
    else:
        played.sequences[sequence.request_id] = begun


def _tokens_of(request_id: str, sequence: _Sequence, token_id: int) -> pb.SequenceTokens:
    """Its next token."""
    first_index, sequence.num_tokens = sequence.num_tokens, sequence.num_tokens + 1
    is_last = sequence.num_tokens >= sequence.max_tokens
    return pb.SequenceTokens(
        request_id=request_id,
        attempt=sequence.attempt,
        first_index=first_index,
        token_ids=(token_id,),
        finish=inference.FINISH_REASON_LENGTH if is_last else inference.FINISH_REASON_UNSPECIFIED,
    )


async def _step_forever(
    played: _Played, outbox: asyncio.Queue[pb.StageMessage], tokens: Sequence[int]
) -> None:
    token_ids = itertools.cycle(tokens)
    due_s = time.monotonic()
    while True:
        step_s = played.step_s
        if step_s is None:
            await played.paced.wait()
            played.paced.clear()
            due_s = time.monotonic() + (played.step_s or 0.0) * played.offset
            continue
        due_s = max(due_s + step_s, time.monotonic() - step_s)  # what was late by more stays late
        await asyncio.sleep(due_s - time.monotonic())
        _step(played, outbox, next(token_ids), step_s)


def _step(played: _Played, outbox: asyncio.Queue[pb.StageMessage], token_id: int, step_s: float) -> None:
    if not played.sequences:
        return
    for request_id, sequence in played.sequences.items():
        if sequence.num_tokens == 0:
            played.begun[request_id] = len(played.steps)
    made = [_tokens_of(name, sequence, token_id) for name, sequence in played.sequences.items()]
    played.steps.append(time.monotonic())
    count = len(made)
    measure = pb.StepMeasure(new_tokens=count, sequences=count, context_tokens=count, seconds=step_s)
    load = pb.Load(sequences_decoding=count, free_kv_blocks=_KV_BLOCKS)
    outbox.put_nowait(pb.StageMessage(step=pb.StepReport(sequences=made, load=load, measure=measure)))
    ended = [name for name, each in played.sequences.items() if each.num_tokens >= each.max_tokens]
    for name in ended:
        del played.sequences[name]


async def _beat(interval_s: float, outbox: asyncio.Queue[pb.StageMessage]) -> None:
    load = pb.Load(free_kv_blocks=_KV_BLOCKS, free_embedding_blocks=_KV_BLOCKS)
    while True:
        await asyncio.sleep(interval_s)
        outbox.put_nowait(pb.StageMessage(heartbeat=pb.Heartbeat(load=load, roles=_ROLES)))


async def _write(call: grpc.aio.StreamStreamCall[Any, Any], outbox: asyncio.Queue[pb.StageMessage]) -> None:
    while True:
        await call.write(await outbox.get())
