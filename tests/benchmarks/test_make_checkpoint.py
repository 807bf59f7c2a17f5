"""The speed checkpoints are whole model folders, and answers on them do not stop early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from benchmarks import make_checkpoint
from benchmarks.make_checkpoint import PRESETS, write_checkpoint
from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.engine import Engine
from stage_servers.engine.loader import load_model
from stage_servers.engine.records import EngineConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, PRESETS["tiny"], seed=0)
    return tmp_path


def test_greedy_answers_meet_no_special_token(folder: Path) -> None:
    model = load_model(folder)
    assert model.dtype == torch.bfloat16
    pool = torch.zeros(model.kv_planes, 32, 16, model.kv_token_elements, dtype=model.dtype)
    engine = Engine(model, pool, BlockAllocator(32), EngineConfig())
    engine.add_prefill(SequenceSpec("r", 0, tuple(range(50)), SamplingParams(300)), hand_over=False)
    tokens = []
    while engine.has_work:
        tokens += [token.token_id for token in engine.step().tokens]
    assert len(tokens) == 300
    assert not set(tokens) & (model.eos_token_ids | model.description.media_token_ids)


def test_tokenizer_and_config_agree(folder: Path) -> None:
    tokenizer, family = Tokenizer.from_file(str(folder / "tokenizer.json")), load_family(folder)
    assert tokenizer.get_vocab_size() == family.vocab_size
    assert {tokenizer.token_to_id("<|im_end|>")} == family.eos_token_ids
    assert tokenizer.token_to_id("<|image_pad|>") == family.placeholder_token_id
    assert tokenizer.decode(tokenizer.encode("hello wörld").ids) == "hello wörld"


def test_large_checkpoints_come_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    write_checkpoint(whole, PRESETS["tiny"], seed=3)
    monkeypatch.setattr(make_checkpoint, "MAX_SHARD_BYTES", 100_000)
    parts = tmp_path / "parts"
    write_checkpoint(parts, PRESETS["tiny"], seed=3)
    assert len(list(parts.glob("*.safetensors"))) > 2
    one, many = load_model(whole), load_model(parts)
    for ours, theirs in zip(one.family.model.parameters(), many.family.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
