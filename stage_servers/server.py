"""Builds one stage server from its config and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import torch
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.collector import collect_when_idle, settle_collector
from core.encode_order import SLICE_S
from core.ids import host_id, new_epoch
from core.log_lines import start_log
from core.stages import Stage
from elasticmm.v1 import stage_control_pb2, transfer_pb2
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.channels import SERVER_OPTIONS
from kv_transfer.layout import PayloadKind
from kv_transfer.pace import PacedLink
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner, reap_segments
from kv_transfer.sender import Sender
from kv_transfer.servicer import add_transfer_service
from kv_transfer.tls import add_port
from kv_transfer.transports.registry import usable
from stage_servers.cache.making import cache_settings, make_kv_cache
from stage_servers.config import StageConfig
from stage_servers.devices import available_cores, device_name
from stage_servers.emulation.setup import emulate
from stage_servers.engine.device import use_device
from stage_servers.engine.engine import Engine
from stage_servers.engine.loader import load_model
from stage_servers.engine.records import EngineConfig
from stage_servers.engine.served import ServedModel
from stage_servers.instance import Instance
from stage_servers.link import CoordinatorLink, run_until_stopped
from stage_servers.pools import kv_token_bytes, pool_sizes
from stage_servers.wire import group_number, stage_number

logger = logging.getLogger(__name__)

MAX_ENCODE_TOKENS = 4096  # language-model tokens of one vision batch

OnReady = Callable[[str], None]


def run(config: StageConfig, *, model: ServedModel | None = None, on_ready: OnReady = lambda _: None) -> None:
    """Serves until SIGTERM, SIGINT or the coordinator's word; blocks.

    `model` is one that was loaded before a fork; without it the folder is
    loaded here. `on_ready` gets the instance id once the coordinator knows it.
    Raises ModelError, SegmentTooLarge, RefusedError, OSError for a port that is taken.
    """
    start_log(config.log_level, config.log_format, config.instance_id)
    keep_freed_memory()
    _take_cores(config)
    pace = None
    if config.emulated is not None:
        config, model, pace = emulate(config, config.emulated)
    elif model is None or not model_fits(model, config):
        model = load_model(config.model, dtype=config.dtype, device=config.device, attention=config.attention)
    uvloop.run(_serve(config, model, pace, on_ready))


def _take_cores(config: StageConfig) -> None:
    if config.cores is not None:
        os.sched_setaffinity(0, config.cores)
    torch.set_num_threads(config.threads or len(available_cores()))


def model_fits(model: ServedModel, config: StageConfig) -> bool:
    """Whether a model loaded before the fork is what this config asks for."""
    dtype = str(model.dtype).removeprefix("torch.")
    return (
        config.device == "cpu"
        and config.dtype in ("auto", dtype)
        and config.attention in ("auto", model.attention_backend)
        and model.path == config.model
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one instance is made of."""

    instance: Instance
    kv: Pool
    embeddings: Pool
    sender: Sender
    receiver: TransferReceiver
    transports: tuple[str, ...]
    epoch: int


async def _serve(config: StageConfig, model: ServedModel, pace: PacedLink | None, on_ready: OnReady) -> None:
    async with _parts(config, model, pace) as parts, _transfer_server(config, parts.receiver) as port:
        endpoint = f"{config.public_host}:{port}"
        parts.instance.endpoint = endpoint
        registration = _registration(config, model, parts, endpoint)
        link = CoordinatorLink(parts.instance, config.coordinator, config.token, registration, config.tls)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        settle_collector()
        beside = [
            asyncio.create_task(_tell_ready(link, parts.instance, on_ready)),
            asyncio.create_task(collect_when_idle(lambda: parts.instance.is_idle)),
        ]
        try:
            await run_until_stopped(link, stop, parts.instance.crashed)
        finally:
            for task in beside:
                task.cancel()


async def _tell_ready(link: CoordinatorLink, instance: Instance, on_ready: OnReady) -> None:
    await link.attached.wait()
    on_ready(instance.instance_id)


@contextlib.asynccontextmanager
async def _parts(config: StageConfig, model: ServedModel, pace: PacedLink | None) -> AsyncIterator[_Parts]:
    reap_segments(config.cluster)
    transports = usable(
        None if config.transport == "auto" else [config.transport], is_encrypted=config.tls is not None
    )
    epoch = new_epoch()
    name = config.instance_id or f"pid{os.getpid()}"
    owner = SegmentOwner(config.cluster, name, epoch) if config.transport in {"auto", "shm"} else None
    kv, embeddings = _make_pools(config, model, owner)
    sender = Sender(
        model_fingerprint=model.fingerprint,
        instance_id=name,
        host_id=host_id(),
        token=config.token,
        transports=transports,
        tls=config.tls,
        link=pace,
    )
    instance = Instance(
        model=model,
        kv=kv,
        embeddings=embeddings,
        sender=sender,
        token=config.token,
        tls=config.tls,
        roles=config.roles,
        group=config.group,
        media_workers=config.media_workers,
        pull_timeout_s=config.pull_timeout_s,
        embedding_cache=cache_settings(config, PayloadKind.EMBEDDING, embeddings.device),
    )
    receiver = TransferReceiver(
        {PayloadKind.KV: kv, PayloadKind.EMBEDDING: embeddings},
        instance,
        epoch=epoch,
        host_id=host_id(),
        instance_id=name,
        listen_host=config.host,
        transports=transports,
        checksums=config.checksums,
    )
    limits = EngineConfig(
        config.chunk_tokens, config.max_sequences, config.block_tokens, config.prompt_order, config.encoding
    )
    engine = Engine(
        model,
        kv.tensor,
        kv.blocks,
        limits,
        instance,
        cache=make_kv_cache(config, kv, instance.caches.note),
        on_needed=instance.on_items_needed,
    )
    await asyncio.to_thread(_prepare, engine, model)
    await receiver.start()
    instance.start(
        engine,
        receiver,
        MAX_ENCODE_TOKENS,
        slice_s=SLICE_S * (config.time_scale if config.emulated else 1),
        encode_order=config.encode_order,
    )
    try:
        yield _Parts(instance, kv, embeddings, sender, receiver, transports, epoch)
    finally:
        await instance.stop()
        await sender.close()
        await receiver.close()
        kv.close()
        embeddings.close()
        model.close()


def _prepare(engine: Engine, model: ServedModel) -> None:
    """In a thread: peers of this start at the same time, and signals are heard meanwhile."""
    use_device(model.device)
    engine.prepare()


def _make_pools(config: StageConfig, model: ServedModel, owner: SegmentOwner | None) -> tuple[Pool, Pool]:
    sizes = pool_sizes(model, config)
    layout = kv_layout(
        model.fingerprint,
        model.dtype,
        num_layers=model.num_layers,
        num_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        block_tokens=config.block_tokens,
    )
    kv = Pool(layout, sizes.kv_blocks, device=model.device, owner=owner)
    shelf = embedding_layout(model.fingerprint, model.dtype, width=model.embedding_width)
    return kv, Pool(shelf, sizes.embedding_blocks, device=model.device, owner=owner)


@contextlib.asynccontextmanager
async def _transfer_server(config: StageConfig, receiver: TransferReceiver) -> AsyncIterator[int]:
    """Transfer, health and reflection on the instance's own port; yields the port."""
    server = grpc.aio.server(options=[*SERVER_OPTIONS, ("grpc.so_reuseport", 0)])
    add_transfer_service(server, receiver, config.token)
    services = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(services, server)
    names = [transfer_pb2.DESCRIPTOR.services_by_name["Transfer"].full_name, health.SERVICE_NAME]
    if config.reflection:
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    for name in ("", *names):
        await services.set(name, health_pb2.HealthCheckResponse.SERVING)
    port = add_port(server, f"{config.host}:{config.port}", config.tls)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


def _registration(
    config: StageConfig, model: ServedModel, parts: _Parts, endpoint: str
) -> stage_control_pb2.Register:
    return stage_control_pb2.Register(
        instance_id=config.instance_id,
        epoch=parts.epoch,
        roles=[stage_number(stage) for stage in Stage if stage in config.roles],
        group=group_number(config.group),
        endpoint=endpoint,
        host_id=host_id(),
        pid=os.getpid(),
        model_fingerprint=model.fingerprint,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device_name(config.device, available_cores()),
        attention_backend=model.attention_backend,
        block_tokens=config.block_tokens,
        total_kv_blocks=parts.kv.num_blocks,
        total_embedding_blocks=parts.embeddings.num_blocks,
        transports=parts.transports,
        kv_bytes_per_token=kv_token_bytes(model),
        max_sequences=config.max_sequences,
    )
