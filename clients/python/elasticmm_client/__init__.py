"""Client of an ElasticMM cluster: chat with text and pictures, token streams back.

    from elasticmm_client import Client

    with Client("127.0.0.1:50051") as client:
        for event in client.generate("Say hello", max_tokens=20):
            print(event.text, end="", flush=True)

`AsyncClient` is the same for asyncio. Failures are `ElasticMMError`s.
"""

from elasticmm_client.admin import AdminClient
from elasticmm_client.async_client import AsyncClient
from elasticmm_client.async_stream import AsyncStream
from elasticmm_client.caches import CacheExplanation, ClusterCache, InstanceCache, MediaExplanation, PoolCache
from elasticmm_client.client import Client
from elasticmm_client.errors import (
    AccessDenied,
    AlreadyRunning,
    Cancelled,
    DeadlineExceeded,
    ElasticMMError,
    InvalidRequest,
    NotRunning,
    Overloaded,
    ServerError,
    Unavailable,
)
from elasticmm_client.events import (
    Accepted,
    Alternative,
    Event,
    Finished,
    StageSpan,
    TokenLogprobs,
    Tokens,
    Usage,
)
from elasticmm_client.messages import user_message
from elasticmm_client.migration import Migration
from elasticmm_client.model import Limits, Model
from elasticmm_client.recent import RecentRequests, RequestTrace
from elasticmm_client.request import GenerateOptions
from elasticmm_client.result import GenerateResult
from elasticmm_client.slo import SloClass, SloReport, SloWindow
from elasticmm_client.status import ClusterStatus, InstanceStatus, TransferStatus
from elasticmm_client.stream import Stream
from elasticmm_client.tls import Tls

__all__ = [
    "Accepted",
    "AccessDenied",
    "AdminClient",
    "AlreadyRunning",
    "Alternative",
    "AsyncClient",
    "AsyncStream",
    "CacheExplanation",
    "Cancelled",
    "Client",
    "ClusterCache",
    "ClusterStatus",
    "DeadlineExceeded",
    "ElasticMMError",
    "Event",
    "Finished",
    "GenerateOptions",
    "GenerateResult",
    "InstanceCache",
    "InstanceStatus",
    "InvalidRequest",
    "Limits",
    "MediaExplanation",
    "Migration",
    "Model",
    "NotRunning",
    "Overloaded",
    "PoolCache",
    "RecentRequests",
    "RequestTrace",
    "ServerError",
    "SloClass",
    "SloReport",
    "SloWindow",
    "StageSpan",
    "Stream",
    "Tls",
    "TokenLogprobs",
    "Tokens",
    "TransferStatus",
    "Unavailable",
    "Usage",
    "user_message",
]
