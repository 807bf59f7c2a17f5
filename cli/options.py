"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cache.eviction import POLICY_NAMES
from core.encode_order import ENCODE_ORDERS
from core.prompt_order import ENCODINGS, PROMPT_ORDERS
from kv_transfer.transports import NAMES
from stage_servers.config import ATTENTIONS

StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", help="Folder that remembers the cluster.")
]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Name of the cluster, if you run several.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Coordinator. Default: the one started by 'up'."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Cluster token. Default: $ELASTICMM_TOKEN, or what 'up' wrote."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelOption = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="Hugging Face folder. Default: the demo model.")
]
ModelNameOption = Annotated[
    str, typer.Option("--model-name", metavar="NAME", help="Served name. Default: the folder's name.")
]
HostOption = Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")]
AdvertiseOption = Annotated[
    str | None, typer.Option("--advertise", metavar="HOST", help="Name that others reach this host by.")
]
AllowPrivateOption = Annotated[
    bool, typer.Option("--allow-private-urls", help="Fetch picture URLs of private and loopback addresses.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", metavar="DTYPE", help="auto, float32, bfloat16 or float16.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="auto (GPUs where there are), cpu, cuda, cuda:N, emulated:PROFILE."
    ),
]
DevicesOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="LIST",
        help="auto (GPUs where there are), cpu, cuda, cuda:N, emulated:PROFILE; of several, in turn.",
    ),
]
TimeScaleOption = Annotated[
    float | None,
    typer.Option("--time-scale", metavar="X", help="Emulated devices: real seconds per profile second."),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", metavar="SET", help="fixed (as started), coupled, replicas, static:SPLIT or emp."
    ),
]
AbOption = Annotated[
    str | None,
    typer.Option(
        "--ab", metavar="SET[:SHARE]", help="A second policy set for a share of instances and requests."
    ),
]
ShadowOption = Annotated[
    str | None,
    typer.Option("--shadow", metavar="SET", help="A second policy set that decides without acting."),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME|FILE",
        help="Costs that the policies reckon with. Default of 'up': the one that devices are emulated by.",
    ),
]
SloOption = Annotated[
    str | None,
    typer.Option(
        "--slo",
        metavar="TTFT,TPOT[,MEDIA-TTFT]",
        help="Targets in seconds, such as 2,0.1; with media 2,0.1,4.",
    ),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="PIECE",
        help="Switch off a piece of emp (search, hysteresis, …), to see what it is worth; may be repeated.",
    ),
]
CacheAwareOption = Annotated[
    bool,
    typer.Option("--cache-aware/--no-cache-aware", help="Dispatch weighs what instances' caches hold."),
]
TenantsOption = Annotated[
    Path | None,
    typer.Option(
        "--tenants",
        metavar="FILE",
        resolve_path=True,
        help="What tenants may share and keep in caches (TOML); read again on SIGHUP of the coordinator.",
    ),
]
AuditLogOption = Annotated[
    Path | None,
    typer.Option(
        "--audit-log",
        metavar="FILE",
        resolve_path=True,
        help="Who emptied caches, who shares them: JSON lines. Default: among the coordinator's log.",
    ),
]
AttentionOption = Annotated[
    str,
    typer.Option(
        "--attention",
        metavar="BACKEND",
        help=f"Attention backend: {', '.join(ATTENTIONS)}; auto takes the best.",
    ),
]
TransportOption = Annotated[
    str, typer.Option("--transport", metavar="NAME", help=f"auto, {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
]
ChecksumsOption = Annotated[
    bool, typer.Option("--checksums/--no-checksums", help="Compare a checksum of each block received.")
]
CoresOption = Annotated[
    str | None, typer.Option("--cores", metavar="LIST", help="CPU cores to use, such as 0-3,6. Default: all.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, help="Compute threads per instance. Default: one per core."
    ),
]
KvBlocksOption = Annotated[
    int | None,
    typer.Option("--kv-blocks", metavar="N", min=1, help="KV blocks per instance. Default: by free memory."),
]
EmbeddingBlocksOption = Annotated[
    int | None, typer.Option("--embedding-blocks", metavar="N", min=1, help="Embedding blocks per instance.")
]
ChunkTokensOption = Annotated[
    int | None, typer.Option("--chunk-tokens", metavar="N", min=1, help="Most tokens of one engine step.")
]
PromptOrderOption = Annotated[
    str,
    typer.Option("--prompt-order", metavar="ORDER", help=f"In engine steps: {' or '.join(PROMPT_ORDERS)}."),
]
EncodeOrderOption = Annotated[
    str,
    typer.Option(
        "--encode-order", metavar="ORDER", help=f"Of pictures on the device: {' or '.join(ENCODE_ORDERS)}."
    ),
]
EncodingOption = Annotated[
    str,
    typer.Option(
        "--encoding",
        metavar="HOW",
        help=f"{' or '.join(ENCODINGS)}: a prompt waits until all its pictures are encoded.",
    ),
]
PrefixCacheOption = Annotated[
    bool,
    typer.Option("--prefix-cache/--no-prefix-cache", help="Keep KV and embeddings for those who ask again."),
]
CachePolicyOption = Annotated[
    str,
    typer.Option("--cache-policy", metavar="POLICY", help=f"What goes first: {' or '.join(POLICY_NAMES)}."),
]
CacheHostOption = Annotated[
    int | None,
    typer.Option(
        "--cache-host-mib",
        metavar="MIB",
        min=0,
        help="RAM under a GPU's caches. Default: a tenth of it, 8 GiB at most.",
    ),
]
CacheTtlOption = Annotated[
    float | None,
    typer.Option(
        "--cache-ttl-s",
        metavar="SECONDS",
        help="Seconds that an entry may go unused. Default: while there is room.",
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        metavar="FILE",
        resolve_path=True,
        help="Certificate of all processes (PEM): they use TLS.",
    ),
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", resolve_path=True, help="Its key (PEM).")
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca", metavar="FILE", resolve_path=True, help="CA that peers' certificates come from (PEM)."
    ),
]
TlsNameOption = Annotated[
    str | None,
    typer.Option(
        "--tls-name", metavar="NAME", help="Name in peers' certificates. Default: what they are reached by."
    ),
]
HttpPortOption = Annotated[
    int | None,
    typer.Option(
        "--http-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Of the OpenAI-compatible door; 0 takes a free one.",
    ),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Of HOST:PORT/metrics for Prometheus; 0 takes a free one. Default: none.",
    ),
]
LogFormatOption = Annotated[
    str,
    typer.Option(
        "--log-format", metavar="FORMAT", help="text, or json: one object a line, with request ids."
    ),
]
TlsClientCertOption = Annotated[
    bool,
    typer.Option(
        "--tls-client-cert/--no-tls-client-cert", help="Clients must have a certificate of --tls-ca, too."
    ),
]
ReflectionOption = Annotated[
    bool, typer.Option("--reflection/--no-reflection", help="Listeners describe their services.")
]
DashboardOption = Annotated[
    bool, typer.Option("--dashboard/--no-dashboard", help="The HTTP door has the dashboard at /.")
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A name that HTTP door and metrics are reached by where there are no API keys (*.NAME: all "
        "below it, *: any). May be said again. Always: addresses, localhost, and the names listened at.",
    ),
]
OtlpEndpointOption = Annotated[
    str,
    typer.Option(
        "--otlp-endpoint", metavar="URL", help="Traces go there, such as http://HOST:4317. Default: nowhere."
    ),
]
HeartbeatTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--heartbeat-timeout",
        metavar="SECONDS",
        help="Instances that are silent for longer are given up. Default: 10.",
    ),
]
