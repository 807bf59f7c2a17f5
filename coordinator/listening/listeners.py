"""The coordinator's listeners: gRPC with all its services, HTTP, and metrics."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING

import grpc
from starlette.routing import Route

from coordinator.access.guard import Guard, Proof
from coordinator.access.hosts import HostNames, host_names
from coordinator.access.principal import Right
from coordinator.config import CoordinatorConfig
from coordinator.dashboard.pages import dashboard_routes
from coordinator.listening.crowd import Crowd
from coordinator.listening.crowding import CrowdInterceptor
from coordinator.listening.interceptors import GuardInterceptor, StatusInterceptor, TokenInterceptor
from coordinator.listening.options import endpoint, server_options
from coordinator.listening.unreadable import ReadingInterceptor
from coordinator.metrics.listener import Headers, check_hosts
from coordinator.metrics.page import metrics_route
from coordinator.oip.servicer import OpenInferenceServicer
from coordinator.openai.app import make_app
from coordinator.openai.inside import Inside
from coordinator.openai.listener import HttpListener
from coordinator.openai.served import Served
from coordinator.openai.token_texts import TokenTexts
from coordinator.prompt.token_bytes import token_bytes
from coordinator.servicers.admin import AdminServicer
from coordinator.servicers.inference import InferenceServicer
from coordinator.servicers.stage_control import StageControlServicer
from core.version import version
from elasticmm.oip import open_inference_pb2, open_inference_pb2_grpc
from elasticmm.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    stage_control_pb2,
    stage_control_pb2_grpc,
)

if TYPE_CHECKING:
    from coordinator.server import Coordinator

log = logging.getLogger(__name__)

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
MEDIA = inference_pb2.DESCRIPTOR.services_by_name["Media"].full_name
STAGE_CONTROL = stage_control_pb2.DESCRIPTOR.services_by_name["StageControl"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name
OPEN_INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


def make_server(coordinator: Coordinator) -> grpc.aio.Server:
    """With all its services; not bound yet."""
    config = coordinator.config
    calls = coordinator.watch.crowds.watch(Crowd("grpc", config.max_calls, "max_calls"))
    ports = {
        "grpc_connections": lambda: coordinator.port,
        "media_connections": lambda: coordinator.media_port,
    }
    coordinator.watch.watch_ports(ports, config.max_connections, "max_connections")
    server = grpc.aio.server(
        interceptors=(
            TokenInterceptor(config.cluster_token, {STAGE_CONTROL}),
            GuardInterceptor(coordinator.guard, {INFERENCE: Right.INFER, ADMIN: Right.ADMIN}),
            CrowdInterceptor(calls, (STAGE_CONTROL, ADMIN)),
            StatusInterceptor(),
            ReadingInterceptor(),
        ),
        options=server_options(coordinator.max_message_bytes, config.max_connections),
    )
    inference = InferenceServicer(
        coordinator.door, coordinator.describe, coordinator.guard, config.stalled_reader_s
    )
    inference_pb2_grpc.add_InferenceServicer_to_server(inference, server)
    stage_control_pb2_grpc.add_StageControlServicer_to_server(
        StageControlServicer(coordinator.cluster), server
    )
    admin = AdminServicer(
        coordinator.state,
        coordinator.dispatcher.migrate,
        coordinator.planner,
        coordinator.cache_admin,
        coordinator.guard,
        clock=coordinator.clock,
        slo_report=coordinator.watch.slo.report,
        shut_down=coordinator.stopping.set,
        recent=coordinator.dispatcher.recent,
        slo=coordinator.slo,
        trials=coordinator.trials,
    )
    admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
    open_inference = OpenInferenceServicer(
        coordinator.door,
        coordinator.model.name,
        version(),
        lambda: coordinator.cluster.is_ready,
        coordinator.guard,
        context_tokens=coordinator.model.context_tokens,
        stalled_reader_s=config.stalled_reader_s,
    )
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server)
    names = (INFERENCE, STAGE_CONTROL, ADMIN, OPEN_INFERENCE)
    coordinator.health.add_to(server, names, reflects=config.reflection)
    return server


def open_http(coordinator: Coordinator) -> tuple[HttpListener | None, str]:
    """The HTTP door, and its URL; None and empty if it stays closed. Raises OSError."""
    config = coordinator.config
    if config.http_port is None:
        return None, ""
    context = _tls_context(config)
    metrics = metrics_route(coordinator.watch.metrics.render, partial(_admit_to_metrics, coordinator.guard))
    app = make_app(_served(coordinator), [*_dashboard(coordinator), metrics], hosts=_hosts(config))
    crowd = coordinator.watch.crowds.watch(Crowd("http", config.max_connections, "max_connections"))
    http = HttpListener(app, config.shutdown_grace_s, context, config.stalled_reader_s, crowd)
    port = http.open(config.host, config.http_port)
    log.info("coordinator: HTTP on %s:%d", config.host, port)
    return http, f"{'http' if context is None else 'https'}://{endpoint(config.public_host, port)}"


async def open_metrics(coordinator: Coordinator) -> str:
    """The URL of the listener of metrics; empty where the settings want none. Raises OSError."""
    config = coordinator.config
    if config.metrics_port is None:
        return ""
    admit = partial(_admit_scraper, _hosts(config), coordinator.guard)
    context = _tls_context(config)
    port = await coordinator.watch.listen(config.host, config.metrics_port, admit, context)
    log.info("coordinator: metrics on %s:%d", config.host, port)
    return f"{'http' if context is None else 'https'}://{endpoint(config.public_host, port)}/metrics"


def _admit_scraper(names: HostNames | None, guard: Guard, headers: Headers, peer: str) -> None:
    if guard.is_open:
        check_hosts(names, headers)
    _admit_to_metrics(guard, headers, peer)


def _admit_to_metrics(guard: Guard, headers: Headers, peer: str) -> None:
    guard.authenticate(headers, Right.METRICS, peer)


def _tls_context(config: CoordinatorConfig) -> ssl.SSLContext | None:
    """None: plain text."""
    if config.tls is None:
        return None
    return config.tls.server_context(wants_client_cert=config.tls_client_cert)


def _hosts(config: CoordinatorConfig) -> HostNames | None:
    """See make_app."""
    if config.tls is not None:
        return None
    return host_names(config.host, config.advertise_host, config.allow_hosts)


def _dashboard(coordinator: Coordinator) -> list[Route]:
    """Empty where it is closed."""
    if not coordinator.config.dashboard:
        return []

    def authenticate(proof: Proof, peer: str) -> None:
        coordinator.guard.authenticate(proof, Right.ADMIN, peer)

    return dashboard_routes(coordinator.snapshots.take, authenticate)


def _served(coordinator: Coordinator) -> Served:
    door = coordinator.door
    texts = TokenTexts(partial(token_bytes, door.tokenizer))
    inside = Inside(door.generate, coordinator.describe, coordinator.guard, texts)
    return Served(
        enter=inside.enter,
        is_ready=lambda: coordinator.cluster.is_ready,
        is_open=inside.is_open,
        version=version(),
        stalled_s=coordinator.config.stalled_reader_s,
    )
