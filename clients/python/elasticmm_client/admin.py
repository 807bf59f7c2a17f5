"""Questions and orders that need the cluster token."""

from __future__ import annotations

from types import TracebackType

import grpc
from grpc import aio

from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from elasticmm_client.channel import CHANNEL_OPTIONS, UNARY_TIMEOUT_S, token_metadata
from elasticmm_client.errors import error_from_call
from elasticmm_client.migration import Migration, migration_from_proto
from elasticmm_client.status import ClusterStatus, status_from_proto


class AdminClient:
    """Looks at one cluster, moves its requests and ends it. address: HOST:PORT of the coordinator."""

    def __init__(self, address: str, token: str | None) -> None:
        self._token = token
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)

    def status(self, timeout_s: float = UNARY_TIMEOUT_S) -> ClusterStatus:
        """Instances and load. Raises ElasticMMError."""
        return fetch_status(self._channel, self._token, timeout_s)

    def migrate(
        self, request_id: str, to_instance: str | None = None, timeout_s: float = UNARY_TIMEOUT_S
    ) -> Migration:
        """Moves a running request; see Client.migrate."""
        return ask_to_migrate(self._channel, self._token, request_id, to_instance, timeout_s)

    def shutdown(self, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        """Ends the cluster. Raises ElasticMMError."""
        stub = admin_pb2_grpc.AdminStub(self._channel)
        metadata = token_metadata(self._token)
        try:
            stub.Shutdown(admin_pb2.ShutdownRequest(), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from_call(error) from error

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetch_status(
    channel: grpc.Channel, token: str | None, timeout_s: float = UNARY_TIMEOUT_S
) -> ClusterStatus:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    metadata = token_metadata(token)
    try:
        return status_from_proto(
            stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=timeout_s, metadata=metadata)
        )
    except grpc.RpcError as error:
        raise error_from_call(error) from error


async def fetch_status_async(channel: aio.Channel, token: str | None) -> ClusterStatus:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    metadata = token_metadata(token)
    try:
        reply = await stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=UNARY_TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return status_from_proto(reply)


def ask_to_migrate(
    channel: grpc.Channel,
    token: str | None,
    request_id: str,
    to_instance: str | None,
    timeout_s: float = UNARY_TIMEOUT_S,
) -> Migration:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    request = admin_pb2.MigrateRequest(request_id=request_id, instance_id=to_instance or "")
    try:
        reply = stub.Migrate(request, timeout=timeout_s, metadata=token_metadata(token))
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return migration_from_proto(reply)


async def ask_to_migrate_async(
    channel: aio.Channel, token: str | None, request_id: str, to_instance: str | None
) -> Migration:
    """Raises ElasticMMError."""
    stub = admin_pb2_grpc.AdminStub(channel)
    request = admin_pb2.MigrateRequest(request_id=request_id, instance_id=to_instance or "")
    try:
        reply = await stub.Migrate(request, timeout=UNARY_TIMEOUT_S, metadata=token_metadata(token))
    except grpc.RpcError as error:
        raise error_from_call(error) from error
    return migration_from_proto(reply)
