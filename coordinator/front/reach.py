"""Where the coordinator is, and how a connection to it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

# Each channel has a connection of its own; the coordinator alone limits sizes; a peer that is gone without a
# word is noticed, and one that comes back is found soon.
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class ReachTls:
    """PEM files, read whenever a channel is opened."""

    ca: str | None = None  # that the coordinator's certificate comes from; None: the CAs that gRPC brings
    cert: str | None = None  # this end's own with its key, where the coordinator wants one
    key: str | None = None
    name: str | None = None  # that the coordinator's certificate must be for; None: what it is reached by

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError where a file cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))


@dataclass(frozen=True, slots=True)
class Reach:
    address: str  # HOST:PORT
    tls: ReachTls | None = None  # None: plain text

    def open(self) -> grpc.aio.Channel:
        """A channel with a connection of its own. Raises OSError as ReachTls.credentials."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        named = (("grpc.ssl_target_name_override", self.tls.name),) if self.tls.name else ()
        return grpc.aio.secure_channel(self.address, self.tls.credentials(), options=(*_OPTIONS, *named))


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
