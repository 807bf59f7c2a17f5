"""How this client connects."""

from __future__ import annotations

import grpc
from grpc import aio

from elasticmm_client.tls import Tls

# Pictures may travel inline and answers are small, so only the server limits sizes.
# A dead peer is noticed within a minute, also while it is silent.
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

UNARY_TIMEOUT_S = 30.0


def open_channel(address: str, tls: Tls | None) -> grpc.Channel:
    """In plain text where `tls` is None."""
    if tls is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(address, tls.credentials(), options=[*CHANNEL_OPTIONS, *tls.options])


def open_aio_channel(address: str, tls: Tls | None) -> aio.Channel:
    """In plain text where `tls` is None."""
    if tls is None:
        return aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return aio.secure_channel(address, tls.credentials(), options=[*CHANNEL_OPTIONS, *tls.options])


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Proves an API key or the cluster token; empty without one."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
