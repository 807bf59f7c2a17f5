"""Writes on a gRPC stream that may be cancelled at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc


def headers_first(context: grpc.aio.ServicerContext) -> Callable[[Any], Awaitable[None]]:
    """`context.write`, after which the call can always be ended.

    gRPC sends its headers with the first message. Where that write is cancelled it holds them for unsent,
    sends them again with the status, and fails: the client would wait for ever. By themselves they pass by
    flow control, so that they can be waited for.
    """
    has_begun = False

    async def write(message: Any) -> None:
        nonlocal has_begun
        try:
            if not has_begun:
                has_begun = True
                await _whole(context.send_initial_metadata(()))
            await context.write(message)
        except grpc.aio.InternalError:
            # The client went while this waited for it; that the call is cancelled may be told a moment later.
            raise asyncio.CancelledError from None

    return write


async def _whole(work: Awaitable[None]) -> None:
    """Cancelled, it ends all the same before the caller does."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait({task})
