"""What the policy is shown: requests and instances as plain numbers, derived anew each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.policy.view import InstanceView, WaitingView
from coordinator.registry import Instance
from coordinator.request import Request
from core.stages import Stage


def waiting_view(request: Request) -> WaitingView:
    return WaitingView(
        request_id=request.request_id,
        arrival_s=request.arrival_s,
        prompt_tokens=len(request.prompt) + request.num_outputs,
        reserve_tokens=max(1, request.reserved_outputs - request.num_outputs),
        media_tokens=request.media_tokens,
        priority=request.priority,
    )


def instance_view(instance: Instance, dispatched: Sequence[Request]) -> InstanceView:
    name, info = instance.instance_id, instance.info

    def total(count: Callable[[Request], int]) -> int:
        return sum(count(request) for request in dispatched)

    return InstanceView(
        instance_id=name,
        roles=instance.roles,
        block_tokens=info.block_tokens,
        total_kv_blocks=info.total_kv_blocks,
        promised_kv_blocks=total(lambda r: r.promised_kv_blocks(name, info.block_tokens)),
        total_embedding_blocks=info.total_embedding_blocks or None,
        promised_embedding_blocks=total(lambda r: r.promised_embedding_blocks(name)),
        encode_tokens=total(lambda r: r.open_encode_tokens(name)),
        prefill_tokens=total(lambda r: r.open_prefill_tokens(name)),
        sequences=total(lambda r: int(r.has_stage(Stage.DECODE, name))),
    )
