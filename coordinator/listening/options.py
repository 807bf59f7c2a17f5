"""How our gRPC servers listen."""

from __future__ import annotations

import grpc

from core.tls import TlsFiles, add_port

_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_MIN_CLIENT_PING_MS = 10_000
_MAX_IDLE_MS = 300_000  # of a connection without a call; its client makes another when it needs one
# After a pause of this process the pings of patient clients arrive at once.
_MOST_EARLY_PINGS = 10
# gRPC itself cancels calls where more of them come at once; who is refused here is told why.
_MOST_UNSTARTED = 100_000


def server_options(max_message_bytes: int, max_connections: int) -> tuple[tuple[str, int], ...]:
    """A port belongs to one server, and peers that vanish without a word are noticed."""
    return (
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_connection_idle_ms", _MAX_IDLE_MS),
        ("grpc.server.max_pending_requests", _MOST_UNSTARTED),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_UNSTARTED),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_CLIENT_PING_MS),
        ("grpc.http2.max_ping_strikes", _MOST_EARLY_PINGS),
    )


def endpoint(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(
    server: grpc.aio.Server, address: str, tls: TlsFiles | None = None, *, wants_client_cert: bool = True
) -> int:
    """The port; raises OSError if the address cannot be listened on."""
    try:
        port = add_port(server, address, tls, wants_client_cert=wants_client_cert)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if not port:
        raise OSError(f"cannot listen on {address}")
    return port
