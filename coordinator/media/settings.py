"""What the coordinator tells a gateway process at its start, over stdin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from coordinator.config import MediaLimits


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    cluster_token: str
    host: str
    port: int  # 0: any free one
    public_host: str  # what others are told
    message_bytes: int
    limits: MediaLimits
    log_format: str = "text"

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def parse_settings(line: bytes) -> GatewaySettings:
    fields = json.loads(line)
    return GatewaySettings(**{**fields, "limits": MediaLimits(**fields["limits"])})
