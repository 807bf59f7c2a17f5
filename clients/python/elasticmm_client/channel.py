"""How this client connects."""

from __future__ import annotations

# Pictures may travel inline and answers are small, so only the server limits sizes.
# A dead peer is noticed within a minute, also while it is silent.
CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]

UNARY_TIMEOUT_S = 30.0


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Proves the cluster token; empty without one."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
