"""All transports, best first: one entry makes one selectable on both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kv_transfer.channels import Channels
from kv_transfer.transports import NAMES, cuda_driver, nixl_agent
from kv_transfer.transports.acceptor import Acceptor
from kv_transfer.transports.base import Transport
from kv_transfer.transports.collective import groups
from kv_transfer.transports.collective.acceptor import CollectiveAcceptor
from kv_transfer.transports.collective.transport import CollectiveTransport
from kv_transfer.transports.commit_socket import CommitCall
from kv_transfer.transports.cuda_ipc import CudaIpcAcceptor, CudaIpcTransport
from kv_transfer.transports.grpc_stream import GrpcAcceptor, GrpcTransport
from kv_transfer.transports.nixl import NixlAcceptor, NixlTransport
from kv_transfer.transports.shm import ShmAcceptor, ShmTransport


@dataclass(frozen=True, slots=True)
class EndContext:
    """What transports may know of the end they work for."""

    host_id: str
    instance_id: str
    listen_host: str = "127.0.0.1"  # that its own ports are bound to
    commit: CommitCall | None = None  # the receiver's, for acceptors that hear of commits themselves


@dataclass(frozen=True, slots=True)
class Entry:
    """How the two sides of one transport are made. `refusal` says why it cannot be had here, or nothing.

    `is_plaintext`: its bytes pass between hosts, and not through TLS where that is configured.
    """

    make_transport: Callable[[EndContext, Channels], Transport]
    make_acceptor: Callable[[EndContext], Acceptor]
    refusal: Callable[[], str] = lambda: ""
    is_plaintext: bool = False

    def problem(self, *, is_encrypted: bool) -> str:
        """Why it cannot be used, in words; empty if it can."""
        return "it does not go through TLS" if is_encrypted and self.is_plaintext else self.refusal()


REGISTRY: Mapping[str, Entry] = {
    "cuda_ipc": Entry(
        lambda end, _channels: CudaIpcTransport(end.host_id),
        lambda end: CudaIpcAcceptor(end.host_id),
        cuda_driver.refusal,
    ),
    "shm": Entry(
        lambda end, _channels: ShmTransport(end.host_id),
        lambda end: ShmAcceptor(end.host_id, end.commit),
    ),
    "collective": Entry(
        lambda end, _channels: CollectiveTransport(end.instance_id),
        lambda end: CollectiveAcceptor(end.listen_host),
        groups.refusal,
        is_plaintext=True,
    ),
    "nixl": Entry(
        lambda end, _channels: NixlTransport(end.instance_id),
        lambda end: NixlAcceptor(end.instance_id),
        nixl_agent.refusal,
        is_plaintext=True,
    ),
    "grpc": Entry(
        lambda _end, channels: GrpcTransport(channels),
        lambda _end: GrpcAcceptor(),
    ),
}
TRANSPORTS = tuple(REGISTRY)
assert TRANSPORTS == NAMES, "transports/__init__.py names others"


def usable(wanted: Sequence[str] | None, *, is_encrypted: bool = False) -> tuple[str, ...]:
    """The transports to use, best first: those asked for, else all that can be had here.

    With `is_encrypted` none whose bytes go from host to host without TLS.
    Raises ValueError naming one that is unknown or cannot be had.
    """
    if wanted is None:
        return tuple(name for name, entry in REGISTRY.items() if not entry.problem(is_encrypted=is_encrypted))
    unknown = [name for name in wanted if name not in REGISTRY]
    if unknown or not wanted:
        raise ValueError(f"transports: {', '.join(unknown) or 'none'}; known are {', '.join(REGISTRY)}")
    for name in wanted:
        if reason := REGISTRY[name].problem(is_encrypted=is_encrypted):
            raise ValueError(f"transports: {name} cannot be had here: {reason}")
    return tuple(wanted)


def make_transports(names: Iterable[str], end: EndContext, channels: Channels) -> dict[str, Transport]:
    return {name: REGISTRY[name].make_transport(end, channels) for name in names}


def make_acceptors(names: Iterable[str], end: EndContext) -> dict[str, Acceptor]:
    return {name: REGISTRY[name].make_acceptor(end) for name in names}
