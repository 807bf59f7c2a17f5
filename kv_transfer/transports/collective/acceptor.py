"""The receiver's side: lets senders in that know the token, and gives each pair its thread."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
from functools import partial
from typing import Any

import torch

from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.collective.closing import join_all
from kv_transfer.transports.collective.frames import greeting_bytes, unpack_greeting
from kv_transfer.transports.collective.groups import GLOO, NCCL, has_nccl
from kv_transfer.transports.collective.link import answer
from kv_transfer.transports.collective.receiving import ReceivingPair
from kv_transfer.transports.collective.targets import Targets

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
MAX_KNOCKING = 64  # connections that said no hello yet


class CollectiveAcceptor:
    """Listens from the first grant on, on the host that it is given.

    The token goes to senders with their grants, which need the cluster's token: so only
    they get in. It names the instance, and a pair writes into leases of that instance only.
    """

    name = "collective"
    is_direct = False  # see Target

    def __init__(self, listen_host: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._listen_host = listen_host
        self._timeout_s = timeout_s
        self._secret = secrets.token_bytes(32)
        self._targets = Targets()
        self._listener: socket.socket | None = None
        self._starting = asyncio.Lock()  # transfers that open at once share one listener
        self._accepting: asyncio.Task[None] | None = None
        self._knocking: set[asyncio.Task[None]] = set()
        self._pairs: set[ReceivingPair] = set()
        self._device = torch.device("cpu")

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        del offer, pool
        return ""

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        async with self._starting:
            if self._listener is None:
                self._listener = await self._listen()
                accepting = self._accept(self._listener)
                self._accepting = asyncio.create_task(accepting, name="kv-collective-accept")
        self._targets.add(lease, pool)
        is_nccl = pool.device.type == "cuda" and has_nccl()
        if is_nccl:
            self._device = pool.device
        return {
            "port": self._listener.getsockname()[1],
            "token": self._token(lease.sender_instance_id),
            "backend": NCCL if is_nccl else GLOO,
        }

    def lease_ended(self, lease: Lease) -> None:
        self._targets.end(lease)

    async def close(self) -> None:
        tasks = [task for task in (self._accepting, *self._knocking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        pairs = list(self._pairs)
        for pair in pairs:
            pair.hang_up()
        await join_all(pairs)

    async def _listen(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        [(family, _, _, _, address), *_] = await loop.getaddrinfo(
            self._listen_host, 0, type=socket.SOCK_STREAM
        )
        listener = socket.create_server(address[:2], family=family)
        listener.setblocking(False)
        return listener

    def _token(self, instance_id: str) -> str:
        return hmac.digest(self._secret, instance_id.encode(), "sha256").hex()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            control, _ = await loop.sock_accept(listener)
            if len(self._knocking) >= MAX_KNOCKING:
                control.close()
                continue
            task = asyncio.create_task(self._let_in(control))
            self._knocking.add(task)
            task.add_done_callback(self._knocking.discard)

    async def _let_in(self, control: socket.socket) -> None:
        control.setblocking(False)
        with contextlib.ExitStack() as unless_let_in:
            unless_let_in.callback(control.close)
            try:
                async with asyncio.timeout(self._timeout_s):
                    hello = await _read_hello(control)
                self._start(control, hello)
            except (OSError, ValueError, KeyError, EOFError, TimeoutError) as error:
                logger.warning("a connection was turned away: %r", error)
            else:
                unless_let_in.pop_all()

    def _start(self, control: socket.socket, hello: dict[str, Any]) -> None:
        """Raises KeyError, ValueError: not one of ours."""
        instance_id, backend = str(hello["instance_id"]), str(hello["backend"])
        if not hmac.compare_digest(str(hello["token"]).encode(), self._token(instance_id).encode()):
            raise ValueError("the token is wrong")
        if backend not in {GLOO, NCCL} or (backend == NCCL and self._device.type != "cuda"):
            raise ValueError(f"backend {backend!r}")
        control.settimeout(self._timeout_s)
        make = partial(answer, control, backend, self._device, self._timeout_s)
        pair = ReceivingPair(control, make, hello, self._targets, self._pairs.discard)
        for earlier in list(self._pairs):
            if earlier.hello == hello:  # it broke, though that was not heard here
                earlier.hang_up()
        self._pairs.add(pair)
        pair.start()


async def _read_hello(control: socket.socket) -> dict[str, Any]:
    async def exactly(size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            part = await asyncio.get_running_loop().sock_recv(control, size_bytes - len(data))
            if not part:
                raise EOFError("no hello")
            data += part
        return data

    return unpack_greeting(await exactly(greeting_bytes(await exactly(4))))
