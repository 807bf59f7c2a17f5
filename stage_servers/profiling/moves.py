"""Measures what moving KV and embeddings to another process of the host takes, lease and commit included."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

from core.ids import host_id
from kv_transfer.blocks import blocks_for
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import EMBEDDING_BLOCK_TOKENS, Pool, embedding_layout
from kv_transfer.segment import reap_segments
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.engine.model import Model
from stage_servers.profiling.receiving import PoolShape, Settings, receive
from stage_servers.profiling.samples import SizeSample

_READY_S = 120.0
_END_S = 10.0
_ROUNDS = 9


class Receiving(NamedTuple):
    """Where to send to."""

    peer: PeerAddress
    token: str


@contextmanager
def receiving(model: Model, pool: Pool, most_tokens: int, cores: tuple[int, ...]) -> Iterator[Receiving]:
    """A process on `cores` that takes up to `most_tokens` tokens at a time; started afresh, for CUDA's sake.

    Raises RuntimeError if it does not come up.
    """
    cluster, token = f"profile-{os.getpid()}", secrets.token_hex(8)
    shelf = embedding_layout(model.fingerprint, model.dtype, width=model.embedding_width)
    shapes = (
        PoolShape(pool.layout, 2 * pool.blocks_for(most_tokens)),
        PoolShape(shelf, 2 * blocks_for(most_tokens, EMBEDDING_BLOCK_TOKENS)),
    )
    settings = Settings(cluster, token, str(model.device), shapes, cores)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(theirs, settings), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Receiving(_address(ours), token)
        ours.send(None)
    finally:
        ours.close()
        process.join(_END_S)
        process.kill()  # no news to one that has ended
        process.join()
        process.close()
        reap_segments(cluster)


def _address(pipe: Connection) -> PeerAddress:
    try:
        if pipe.poll(_READY_S):
            address: PeerAddress = pipe.recv()
            return address
    except EOFError:
        pass
    raise RuntimeError("the process that transfers are measured with did not come up")


async def measure_moves(
    model: Model, pool: Pool, to: Receiving, token_counts: tuple[int, ...], on_point: Callable[[], None]
) -> tuple[list[SizeSample], list[SizeSample]]:
    """(KV, embeddings) by bytes, from asking for the lease to the answered commit."""
    sender = Sender(
        model_fingerprint=model.fingerprint, instance_id="sender", host_id=host_id(), token=to.token
    )
    kv_token_bytes = pool.layout.pool_bytes(1) // pool.layout.block_tokens
    row = torch.zeros(1, model.embedding_width, dtype=model.dtype, device=model.device)
    kv: list[SizeSample] = []
    embeddings: list[SizeSample] = []
    try:
        for count in token_counts:
            seconds = await _median_s(partial(_send_kv, sender, to.peer, pool, count))
            kv.append(SizeSample(count * kv_token_bytes, seconds))
            on_point()
            rows = row.repeat(count, 1)
            seconds = await _median_s(partial(_send_embedding, sender, to.peer, rows))
            embeddings.append(SizeSample(rows.nbytes, seconds))
            on_point()
    finally:
        await sender.close()
    return kv, embeddings


async def _median_s(send: Callable[[int], Awaitable[None]]) -> float:
    """The first ones map memory and make connections; they do not count."""
    times = []
    for number in range(2 + _ROUNDS):
        started_s = time.perf_counter()
        await send(number)
        times.append(time.perf_counter() - started_s)
    return statistics.median(times[2:])


async def _send_kv(sender: Sender, peer: PeerAddress, pool: Pool, num_tokens: int, number: int) -> None:
    key = f"kv-{num_tokens}-{number}", 0
    outgoing = await sender.open(peer, key, PayloadKind.KV, 0, num_tokens, pool)
    try:
        outgoing.push(0, num_tokens, range(pool.layout.num_planes), range(pool.blocks_for(num_tokens)))
        await outgoing.commit(num_tokens)
    finally:
        await outgoing.abort("the measurement was given up")


async def _send_embedding(sender: Sender, peer: PeerAddress, rows: torch.Tensor, number: int) -> None:
    await sender.send_embedding(peer, (f"embedding-{len(rows)}-{number}", 0), 0, rows)
