"""What the coordinator tells a gateway process over stdin: at its start, and when keys or shares change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coordinator.access.keys import ApiKey
from coordinator.config import MediaLimits
from coordinator.listening.crowd import DEFAULT_MOST
from core.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    cluster_token: str
    host: str
    port: int  # 0: any free one
    public_host: str  # what others are told
    message_bytes: int
    limits: MediaLimits
    keys: tuple[ApiKey, ...] = ()  # of uploads
    is_open: bool = True  # whether anyone may upload while there are no keys
    shares: Mapping[str, float] = field(default_factory=dict)  # tenants' own parts of the store
    tls: TlsFiles | None = None  # as of the coordinator, as the next two
    tls_client_cert: bool = True
    reflection: bool = True
    audit_log: str | None = None  # file that the coordinator writes to as well
    log_format: str = "text"
    max_connections: int = DEFAULT_MOST

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), default=str).encode() + b"\n"


def parse_settings(line: bytes) -> GatewaySettings:
    fields = json.loads(line)
    keys = tuple(_to_key(each) for each in fields["keys"])
    tls = None if fields["tls"] is None else _to_tls(fields["tls"])
    limits = MediaLimits(**fields["limits"])
    return GatewaySettings(**{**fields, "limits": limits, "keys": keys, "tls": tls})


def _to_tls(fields: dict[str, Any]) -> TlsFiles:
    return TlsFiles(Path(fields["cert"]), Path(fields["key"]), Path(fields["ca"]), fields["name"])


def _to_key(fields: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**fields, "rights": tuple(fields["rights"]), "tenants": tuple(fields["tenants"])})
