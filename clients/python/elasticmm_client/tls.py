"""How a client trusts a cluster that speaks TLS, and proves itself where that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. Checked when built: ValueError names the one that is missing, unreadable or no PEM."""

    ca: Path | None = None  # that the cluster's certificate comes from; None: the CAs that gRPC brings
    cert: Path | None = None  # this client's own, with its key, where the cluster wants one
    key: Path | None = None
    name: str | None = None  # that the cluster's certificate must be for; None: what it is reached by

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls_cert, tls_key: one is missing beside the other")
        for setting, path in (("tls_ca", self.ca), ("tls_cert", self.cert), ("tls_key", self.key)):
            try:
                content = _read(path)
            except OSError as error:
                raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}") from None
            if content is not None and b"-----BEGIN " not in content:
                raise ValueError(f"{setting}: {path} is no PEM file")

    @property
    def options(self) -> list[tuple[str, str]]:
        return [("grpc.ssl_target_name_override", self.name)] if self.name else []

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
