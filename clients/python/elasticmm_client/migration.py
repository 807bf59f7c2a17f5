"""A running request that was moved to another instance."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class Migration:
    """Where it decoded before and decodes now, and what the move took."""

    from_instance: str
    to_instance: str
    pause_ms: float  # how long the request stood still
    size_bytes: int
    transport: str


def migration_from_proto(message: admin_pb2.MigrateResponse) -> Migration:
    return Migration(
        from_instance=message.from_instance_id,
        to_instance=message.to_instance_id,
        pause_ms=message.pause_ms,
        size_bytes=message.size_bytes,
        transport=message.transport,
    )
