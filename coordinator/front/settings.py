"""What a worker of the HTTP door is told over stdin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from coordinator.access.hosts import check_host_names
from coordinator.front.reach import Reach, ReachTls
from coordinator.listening.crowd import DEFAULT_MOST
from core.log_lines import check_log_format
from core.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """Raises ValueError naming the setting that is out of range."""

    reach: Reach
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    tls: TlsFiles | None = None  # of the listener; None: plain text
    tls_client_cert: bool = True  # whether callers must have a certificate of its CA
    stalled_s: float = 60.0  # a caller that neither sends nor reads for so long is dropped
    drain_s: float = 30.0  # answers under way have so long to come to their end
    name: str = "http"  # of the worker in its log lines
    log_level: str = "INFO"
    log_format: str = "text"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None  # of the one listener for all workers, 0: any; None: there is none
    metrics_folder: str = ""  # where a worker keeps its values for that one; empty: nowhere
    max_connections: int = DEFAULT_MOST  # of this worker
    allow_hosts: tuple[str, ...] = ()  # further names that it is reached by; see HostNames

    def __post_init__(self) -> None:
        for name, port in (("port", self.port), ("metrics_port", self.metrics_port or 0)):
            if not 0 <= port <= 65535:
                raise ValueError(f"{name}: {port} is not between 0 and 65535")
        if self.drain_s < 0:
            raise ValueError(f"drain_s: must not be below 0, it is {self.drain_s:g}")
        if not self.stalled_s > 0:
            raise ValueError(f"stalled_s: must be above 0, not {self.stalled_s:g}")
        if self.max_connections <= 0:
            raise ValueError(f"max_connections: must be above 0, not {self.max_connections}")
        check_log_format(self.log_format)
        check_host_names("allow_hosts", self.allow_hosts)

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), default=str).encode() + b"\n"


def parse_settings(line: bytes) -> FrontSettings:
    fields = json.loads(line)
    reach, tls = fields["reach"], fields["tls"]
    fields["reach"] = Reach(reach["address"], None if reach["tls"] is None else ReachTls(**reach["tls"]))
    if tls is not None:
        fields["tls"] = TlsFiles(Path(tls["cert"]), Path(tls["key"]), Path(tls["ca"]), tls["name"])
    fields["allow_hosts"] = tuple(fields["allow_hosts"])
    return FrontSettings(**fields)
