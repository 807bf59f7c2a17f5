"""What one stage server is told at its start."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.encode_order import ENCODE_ORDERS, EncodeOrder
from core.log_lines import check_log_format, check_log_level
from core.prompt_order import ENCODINGS, PROMPT_ORDERS, Encoding, PromptOrder
from core.stages import COUPLED, ModalityGroup, Roles, parse_roles, roles_name
from kv_transfer.tls import TlsFiles
from kv_transfer.transports import NAMES
from stage_servers.cache.settings import DEFAULT_POLICY, check_policy, check_ttl

TRANSPORTS = ("auto", *NAMES)
_ANY_HOST = ("0.0.0.0", "::")
TLS_FILES = ("tls_cert", "tls_key", "tls_ca")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "flash_attn", "triton", "native", "sdpa")
_CHOICES: dict[str, tuple[str, ...]] = {
    "transport": TRANSPORTS,
    "dtype": DTYPES,
    "attention": ATTENTIONS,
    "prompt_order": PROMPT_ORDERS,
    "encode_order": ENCODE_ORDERS,
    "encoding": ENCODINGS,
}
_DEVICES = re.compile(r"cpu|cuda(:\d+)?|emulated:.+")


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One instance. Checked when built; ValueError names the field."""

    model: Path  # Hugging Face folder
    coordinator: str  # HOST:PORT
    token: str  # cluster token
    cluster: str = "default"  # names shared memory segments
    instance_id: str = ""  # empty lets the coordinator choose
    roles: Roles = COUPLED
    group: ModalityGroup = ModalityGroup.SHARED
    host: str = "127.0.0.1"
    port: int = 0  # of the transfer service; 0 takes a free one
    advertise: str | None = (
        None  # name peers reach this host by; None: host, or this machine's name where host is any
    )
    device: str = "cpu"  # "cpu", "cuda:N", or "emulated:PROFILE", which takes a profile's time
    time_scale: float = 1.0  # real seconds per second of an emulated device
    device_share: float = 1.0  # of a GPU's memory, weights included: others live on it, too
    dtype: str = "auto"
    attention: str = "auto"
    transport: str = "auto"
    checksums: bool = False  # compare a checksum of each block that is received
    cores: tuple[int, ...] | None = None  # CPU cores this instance may use; None: all
    threads: int | None = None  # compute threads; None: one per core
    block_tokens: int = 16
    kv_blocks: int | None = None  # None: sized from the device's memory
    embedding_blocks: int | None = None
    chunk_tokens: int = 512  # most tokens of one engine step
    max_sequences: int = 64  # most sequences of one decode batch
    prompt_order: PromptOrder = "text-first"  # in the engine's steps; "arrival": first come, first served
    encode_order: EncodeOrder = "shortest"  # on the device; "arrival": first come, first served, and uncut
    encoding: Encoding = "pipelined"  # "blocking": a prompt waits until all of its media are encoded
    prefix_cache: bool = True  # keep KV and embeddings for those who ask for the same again
    cache_policy: str = DEFAULT_POLICY  # who goes first where room is short
    cache_host_mib: int | None = (
        None  # RAM under the device's caches; None: some where that is not RAM itself
    )
    cache_ttl_s: float | None = None  # how long an entry may go unused; None: as long as there is room
    media_workers: int = 2  # threads that decode and preprocess pictures
    pull_timeout_s: float = 3.0  # that a prompt waits for KV of its prefix from a peer; 0: none is fetched
    log_level: str = "INFO"
    log_format: str = "text"  # see core.log_lines
    tls_cert: Path | None = None  # PEM files of all listeners and connections; all three or none
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_name: str | None = None  # name in all peers' certificates; None: what they are reached by
    reflection: bool = True  # whether the transfer service's port describes its services

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            _require(value in known, name, f"{value!r} is not one of {', '.join(known)}")
        _require(
            _DEVICES.fullmatch(self.device) is not None,
            "device",
            f"{self.device!r} is not one of auto, cpu, cuda, cuda:N, emulated:PROFILE",
        )
        _require(bool(self.roles), "roles", "names at least one stage")
        _require(bool(self.token), "token", "is the cluster's token")
        _require(0 <= self.port <= 65535, "port", "is between 0 and 65535")
        for name in ("block_tokens", "chunk_tokens", "max_sequences", "media_workers"):
            _require(getattr(self, name) >= 1, name, "is at least 1")
        for name in ("kv_blocks", "embedding_blocks", "threads"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, "is at least 1")
        _require(self.pull_timeout_s >= 0, "pull_timeout_s", "is 0 or above")
        _require(self.cache_host_mib is None or self.cache_host_mib >= 0, "cache_host_mib", "is at least 0")
        check_log_format(self.log_format)
        check_log_level(self.log_level)
        check_policy(self.cache_policy)
        check_ttl(self.cache_ttl_s)
        _require(0 < self.device_share <= 1, "device_share", "is above 0 and at most 1")
        _require(self.time_scale > 0, "time_scale", "is above 0")
        _require(self.cores is None or len(self.cores) > 0, "cores", "names at least one core")
        if any((self.tls_cert, self.tls_key, self.tls_ca, self.tls_name)):
            for name in TLS_FILES:
                _require(getattr(self, name) is not None, name, "is missing beside the other TLS settings")
        _ = self.tls  # checks the files

    @property
    def emulated(self) -> str | None:
        """Name or path of the profile whose time this instance takes; None: it computes."""
        return emulated_profile(self.device)

    @property
    def tls(self) -> TlsFiles | None:
        """What the transfer service and all connections prove themselves with; None: plain text."""
        if self.tls_cert is None or self.tls_key is None or self.tls_ca is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca, self.tls_name)

    @property
    def public_host(self) -> str:
        """The name that peers are given."""
        if self.advertise or self.host not in _ANY_HOST:
            return self.advertise or self.host
        return socket.gethostname()

    def to_json(self) -> dict[str, Any]:
        """A JSON object that from_json takes back."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"model": str(self.model), "roles": roles_name(self.roles), "group": self.group.value}
        values["cores"] = None if self.cores is None else list(self.cores)
        values |= {name: str(values[name]) for name in TLS_FILES if values[name] is not None}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StageConfig:
        """Raises ValueError naming a missing, unknown or bad field."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        _require(not unknown, ", ".join(unknown), "is not a setting of a stage server")
        for name in ("model", "coordinator", "token"):
            _require(name in values, name, "is missing")
        made: dict[str, Any] = dict(values) | {"model": Path(values["model"])}
        if "roles" in made:
            made["roles"] = parse_roles(made["roles"])
        if "group" in made:
            made["group"] = ModalityGroup(made["group"])
        if made.get("cores") is not None:
            made["cores"] = tuple(made["cores"])
        made |= {name: Path(made[name]) for name in TLS_FILES if made.get(name) is not None}
        return cls(**made)


def emulated_profile(device: str) -> str | None:
    """The PROFILE of "emulated:PROFILE"; None for a device that computes."""
    prefix = "emulated:"
    return device.removeprefix(prefix) if device.startswith(prefix) else None


def _require(holds: bool, field: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {rule}")
