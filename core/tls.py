"""The certificates with which our processes, and clients if wanted, prove themselves to each other."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import grpc

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Mutual TLS: this end's certificate chain and key, and the CA that both ends' must come from.

    Files are PEM and read whenever credentials are made; servers take renewed ones while they run.
    Checked when built: ValueError names the setting that is unreadable or does not fit.
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

    def server_credentials(self, *, wants_client_cert: bool = True) -> grpc.ServerCredentials:
        """Clients without a certificate of the CA are refused, unless they need none.

        Each new connection is served with the files as they are by then; where they do not fit, with the last
        ones that did.
        """
        import grpc

        renewals = _Renewals(self)

        def newest() -> grpc.ServerCertificateConfiguration:
            pair = (self.key.read_bytes(), self.cert.read_bytes())
            ca = self.ca.read_bytes() if wants_client_cert else None
            return grpc.ssl_server_certificate_configuration([pair], ca)

        return grpc.dynamic_ssl_server_credentials(
            newest(), lambda: renewals.take(newest), require_client_authentication=wants_client_cert
        )

    def server_context(self, *, wants_client_cert: bool = True) -> ssl.SSLContext:
        """As `server_credentials`, for servers of Python's own ssl module."""
        renewals = _Renewals(self)
        newest = first = self._make_context(wants_client_cert)

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            nonlocal newest
            newest = renewals.take(lambda: self._make_context(wants_client_cert)) or newest
            connection.context = newest

        # Called at every handshake, also where the client names no server.
        first.sni_callback = renew
        return first

    def _make_context(self, wants_client_cert: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key, password="")
        if wants_client_cert:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class _Renewals:
    """Notices that files were renewed; asked from any thread, by gRPC at every handshake."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._seen = self._stamps()

    def take(self, read: Callable[[], T]) -> T | None:
        """What is read of files that changed since the last call and fit; else None."""
        with self._lock:
            try:
                stamps = self._stamps()
                if stamps == self._seen:
                    return None
                self._seen = stamps  # those that do not fit are looked at again when they change
                replace(self._tls)
                return read()
            except (OSError, ValueError) as error:
                log.error("renewed certificates do not fit, the old ones stay: %s", error)
                return None

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        stats = (path.stat() for path in (self._tls.cert, self._tls.key, self._tls.ca))
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in stats)


class Dialer:
    """Opens channels: through TLS with the newest files that fit, or in plain text where `tls` is None."""

    def __init__(self, tls: TlsFiles | None) -> None:
        self._tls = tls
        self._credentials = None if tls is None else tls.channel_credentials()
        self._renewals = None if tls is None else _Renewals(tls)

    def open(self, endpoint: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        import grpc

        if self._tls is None or self._renewals is None:
            return grpc.aio.insecure_channel(endpoint, options=options)
        self._credentials = self._renewals.take(self._tls.channel_credentials) or self._credentials
        named = (*options, *self._tls.channel_options)
        return grpc.aio.secure_channel(endpoint, self._credentials, options=named)


def add_port(
    server: grpc.aio.Server, address: str, tls: TlsFiles | None, *, wants_client_cert: bool = True
) -> int:
    """The port, which speaks TLS only, or plain text only where `tls` is None."""
    if tls is None:
        return int(server.add_insecure_port(address))
    credentials = tls.server_credentials(wants_client_cert=wants_client_cert)
    return int(server.add_secure_port(address, credentials))
