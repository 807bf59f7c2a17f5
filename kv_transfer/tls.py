"""The certificates with which stage servers prove themselves to each other."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

_BROKEN_OFF = "one end speaks TLS and the other does not, or this end's certificate was refused"
# What gRPC says of connections that came to nothing, and whether only TLS can be the cause.
_HINTS = (
    ("WRONG_VERSION_NUMBER", "the peer does not speak TLS", True),
    ("Hostname Verification", "the peer's certificate is for another name (see tls_name)", True),
    ("CERTIFICATE_VERIFY_FAILED", "the peer's certificate does not hold before tls_ca", True),
    ("Socket closed", _BROKEN_OFF, False),
    ("reset by peer", _BROKEN_OFF, False),
    ("Broken pipe", _BROKEN_OFF, False),
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Mutual TLS: this end's certificate chain and key, and the CA that both ends' must come from.

    Files are PEM and read whenever credentials are made. Checked when built: ValueError
    names the setting that is unreadable or does not fit.
    """

    cert: Path
    key: Path  # without a password
    ca: Path
    name: str | None = None  # that peers' certificates must be for; None: what they are reached by

    def __post_init__(self) -> None:
        for setting, path in (("tls_cert", self.cert), ("tls_key", self.key), ("tls_ca", self.ca)):
            try:
                path.read_bytes()
            except OSError as error:
                raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise ValueError(f"tls_ca: {self.ca} holds no certificate in PEM ({error.reason})") from None
        try:
            context.load_cert_chain(self.cert, self.key, password="")
        except ssl.SSLError as error:
            pair = f"{self.cert} and {self.key} are no certificate and its key in PEM without a password"
            raise ValueError(f"tls_cert: {pair} ({error.reason})") from None

    @property
    def channel_options(self) -> tuple[tuple[str, str], ...]:
        return (("grpc.ssl_target_name_override", self.name),) if self.name else ()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes(),
            private_key=self.key.read_bytes(),
            certificate_chain=self.cert.read_bytes(),
        )

    def server_credentials(self) -> grpc.ServerCredentials:
        """Clients without a certificate of the CA are refused."""
        import grpc

        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes(), require_client_auth=True)


def add_port(server: grpc.aio.Server, address: str, tls: TlsFiles | None) -> int:
    """The port, which speaks TLS only, or plain text only where `tls` is None."""
    if tls is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, tls.server_credentials()))


def connection_problem(details: str) -> tuple[str, bool]:
    """Why TLS let a call fail that gRPC describes so, empty if it did not; and whether that is sure."""
    for words, hint, is_sure in _HINTS:
        if words in details:
            return hint, is_sure
    return "", False
