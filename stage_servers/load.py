"""What an instance has to do and has room for, as its heartbeats and steps tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elasticmm.v1 import stage_control_pb2
from kv_transfer.leases import LeaseTable
from stage_servers.embeddings import EmbeddingShelf
from stage_servers.encode_stage import EncodeStage
from stage_servers.engine_thread import EngineThread

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine


def load_of(
    engine: Engine, thread: EngineThread, encode: EncodeStage, shelf: EmbeddingShelf, leases: LeaseTable
) -> stage_control_pb2.Load:
    sequences = engine.load
    return stage_control_pb2.Load(
        encode_waiting=encode.num_waiting,
        encode_running=thread.num_encoding,
        prefill_waiting_tokens=sequences.prefill_waiting_tokens,
        sequences_prefilling=sequences.num_prefilling,
        sequences_decoding=sequences.num_decoding,
        free_kv_blocks=engine.num_free_blocks,
        free_embedding_blocks=shelf.num_free_blocks,
        leases=leases.num_open,
        quarantined_blocks=leases.num_quarantined_blocks,
    )
