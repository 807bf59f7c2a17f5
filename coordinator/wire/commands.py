"""Stage control, downwards: commands to stage servers."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterable

from coordinator.stage_messages import (
    CancelCommand,
    Command,
    DecodeCommand,
    EncodeCommand,
    FlushCacheCommand,
    MigrateCommand,
    Peer,
    PrefillCommand,
    RegisteredCommand,
    SetCacheSharesCommand,
    SetRolesCommand,
    StopCommand,
)
from coordinator.wire.caches import from_pool
from coordinator.wire.inference import from_format, from_sampling
from coordinator.wire.stages import from_group, from_media_item, from_roles
from core.sequence import CacheUse, MediaSpan, SequenceSpec
from elasticmm.v1 import stage_control_pb2 as pb


def from_command(command: Command) -> pb.CoordinatorMessage:  # noqa: PLR0911 (one per kind)
    match command:
        case RegisteredCommand():
            registered = pb.Registered(
                instance_id=command.instance_id,
                heartbeat_interval_ms=command.heartbeat_interval_ms,
                tpot_target_us=command.tpot_target_us,
            )
            return pb.CoordinatorMessage(registered=registered)
        case EncodeCommand():
            return pb.CoordinatorMessage(encode=_from_encode(command))
        case PrefillCommand():
            return pb.CoordinatorMessage(prefill=_from_prefill(command))
        case DecodeCommand():
            decode = pb.DecodeCommand(
                sequence=from_sequence(command.sequence), prefill=_from_peer(command.prefill)
            )
            return pb.CoordinatorMessage(decode=decode)
        case MigrateCommand():
            return pb.CoordinatorMessage(migrate=_from_migrate(command))
        case CancelCommand():
            cancel = pb.CancelCommand(request_id=command.request_id, attempt=command.attempt)
            return pb.CoordinatorMessage(cancel=cancel)
        case SetRolesCommand():
            set_roles = pb.SetRolesCommand(roles=from_roles(command.roles))
            if command.group is not None:
                set_roles.group = from_group(command.group)
            return pb.CoordinatorMessage(set_roles=set_roles)
        case FlushCacheCommand():
            flush = pb.FlushCacheCommand(tenant=command.tenant, pool=from_pool(command.pool))
            return pb.CoordinatorMessage(flush_cache=flush)
        case SetCacheSharesCommand():
            shares = pb.SetCacheSharesCommand(shares=command.shares)
            return pb.CoordinatorMessage(set_cache_shares=shares)
        case StopCommand():
            return pb.CoordinatorMessage(stop=pb.StopCommand())


def from_sequence(sequence: SequenceSpec) -> pb.Sequence:
    return pb.Sequence(
        request_id=sequence.request_id,
        attempt=sequence.attempt,
        prompt_token_ids=pack_token_ids(sequence.prompt),
        output_token_ids=sequence.outputs,
        media=[from_media_span(span) for span in sequence.media],
        sampling=from_sampling(sequence.sampling),
        stop_token_ids=sorted(sequence.stop_token_ids),
        cache=_from_cache(sequence.cache),
        format=None if sequence.format is None else from_format(sequence.format),
        tenant=sequence.tenant,
    )


def pack_token_ids(token_ids: Iterable[int]) -> bytes:
    """Little-endian uint32 each."""
    packed = array.array("I", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def from_media_span(span: MediaSpan) -> pb.MediaSpan:
    return pb.MediaSpan(
        item_index=span.item_index,
        first_token=span.first_token,
        num_tokens=span.num_tokens,
        grid=span.grid,
        digest=span.digest,
        identity=span.identity,
        max_pixels=span.max_pixels,
    )


def _from_encode(command: EncodeCommand) -> pb.EncodeCommand:
    return pb.EncodeCommand(
        request_id=command.request_id,
        attempt=command.attempt,
        item_index=command.span.item_index,
        media=from_media_item(command.media),
        span=from_media_span(command.span),
        prefill=_from_peer(command.prefill),
        cache=_from_cache(command.cache),
    )


def _from_prefill(command: PrefillCommand) -> pb.PrefillCommand:
    return pb.PrefillCommand(
        sequence=from_sequence(command.sequence),
        decode=_from_peer(command.decode),
        prefix=None if command.prefix is None else _from_peer(command.prefix),
        prefix_tokens=command.prefix_tokens,
    )


def _from_cache(cache: CacheUse | None) -> pb.CacheUse | None:
    return None if cache is None else pb.CacheUse(salt=cache.salt, tenant=cache.tenant)


def _from_migrate(command: MigrateCommand) -> pb.MigrateCommand:
    return pb.MigrateCommand(
        request_id=command.request_id,
        attempt=command.attempt,
        new_attempt=command.new_attempt,
        to=_from_peer(command.to),
    )


def _from_peer(peer: Peer) -> pb.Peer:
    return pb.Peer(
        instance_id=peer.instance_id, endpoint=peer.endpoint, host_id=peer.host_id, epoch=peer.epoch
    )
