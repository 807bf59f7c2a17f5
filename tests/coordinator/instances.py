"""Attached instances, where only a little of them matters."""

from __future__ import annotations

from coordinator.registry import Instance
from coordinator.stage_messages import InstanceInfo
from core.stages import ModalityGroup, parse_roles


def make_instance(name: str = "d0", epoch: int = 1) -> Instance:
    info = InstanceInfo(
        instance_id=name,
        epoch=epoch,
        roles=parse_roles("pd"),
        group=ModalityGroup.SHARED,
        endpoint="",
        host_id="host",
        pid=1,
        model_fingerprint="model",
        dtype="float32",
        device="cpu",
        attention_backend="",
        block_tokens=16,
        total_kv_blocks=100,
        total_embedding_blocks=10,
    )
    return Instance(info, now_s=0.0)
