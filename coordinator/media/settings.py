"""What the coordinator tells a gateway process over stdin: at its start, and when keys change."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from coordinator.access.keys import ApiKey
from coordinator.config import MediaLimits


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    cluster_token: str
    host: str
    port: int  # 0: any free one
    public_host: str  # what others are told
    message_bytes: int
    limits: MediaLimits
    keys: tuple[ApiKey, ...] = ()  # of uploads; none: anyone may
    audit_log: str | None = None  # file that the coordinator writes to as well
    log_format: str = "text"

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def parse_settings(line: bytes) -> GatewaySettings:
    fields = json.loads(line)
    keys = tuple(_to_key(each) for each in fields["keys"])
    return GatewaySettings(**{**fields, "limits": MediaLimits(**fields["limits"]), "keys": keys})


def _to_key(fields: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**fields, "rights": tuple(fields["rights"]), "tenants": tuple(fields["tenants"])})
