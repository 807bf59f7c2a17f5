"""The engine's batches: text passes pictures, blocks are kept for who came first."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

import pytest
import torch

from core.prompt_order import PromptOrder
from core.sampling import SamplingParams
from core.sequence import MediaSpan, SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.batching import Batcher
from stage_servers.engine.records import EngineConfig
from stage_servers.engine.sequence import Sequence
from stage_servers.engine.sequence_blocks import SequenceBlocks


def make(num_prompt: int, *, num_media: int = 0, is_ready: bool = True) -> Sequence:
    media = (MediaSpan(0, 0, num_media, (1, 4, 4), bytes(32)),) if num_media else ()
    spec = SequenceSpec("r", 0, (7,) * num_prompt, SamplingParams(4), media)
    made = Sequence(spec, 0, torch.zeros(3, num_prompt), 0)
    if media and is_ready:
        made.embeddings[0] = torch.zeros(num_media, 1)
    return made


def batcher(num_blocks: int = 100, order: PromptOrder = "text-first", max_sequences: int = 8) -> Batcher:
    return Batcher(
        EngineConfig(64, max_sequences, 8, order), SequenceBlocks(BlockAllocator(num_blocks), 8, None)
    )


def tokens(batches: Batcher, sequences: Seq[Sequence]) -> list[int]:
    chosen = {id(chunk.sequence): chunk.num_tokens for chunk in batches.select(sequences).prefills}
    return [chosen.get(id(sequence), 0) for sequence in sequences]


@pytest.mark.parametrize(("order", "wanted"), [("text-first", [44, 20]), ("arrival", [64, 0])])
def test_text_passes_a_picture_in_the_step(order: PromptOrder, wanted: list[int]) -> None:
    assert tokens(batcher(order=order), [make(200, num_media=150), make(20)]) == wanted


def test_decodes_come_before_both() -> None:
    decode = make(10)
    decode.tokens.append(3)
    decode.num_computed, decode.blocks = 10, [0, 1]
    selection = batcher().select([decode, make(200, num_media=150), make(200)])
    assert [chunk.sequence for chunk in selection.decodes] == [decode]
    assert [chunk.num_tokens for chunk in selection.prefills] == [32, 31]


@pytest.mark.parametrize(("num_blocks", "wanted"), [(12, [64, 0]), (13, [44, 20]), (9, [0, 0])])
def test_blocks_are_kept_for_an_older_picture(num_blocks: int, wanted: list[int]) -> None:
    """It needs ten blocks of eight tokens, the text three."""
    assert tokens(batcher(num_blocks), [make(80, num_media=50), make(20)]) == wanted


def test_a_place_is_kept_for_an_older_picture() -> None:
    asked = [make(80, num_media=50), make(20)]
    assert tokens(batcher(max_sequences=1), asked) == [64, 0]
    assert [bool(sequence.blocks) for sequence in asked] == [True, False]


def test_a_picture_without_embedding_keeps_nothing() -> None:
    assert tokens(batcher(3), [make(80, num_media=50, is_ready=False), make(20)]) == [0, 20]


def test_text_is_ready_where_its_blocks_are_free() -> None:
    assert batcher(3).has_ready_text([make(80, num_media=50), make(20)])
    assert not batcher(2).has_ready_text([make(80, num_media=50), make(20)])
    assert not batcher().has_ready_text([make(80, num_media=50)])


def test_a_prompt_that_waits_for_all_its_pictures_does_not_start_on_the_text_before_them() -> None:
    sequence = make(80, num_media=50, is_ready=False)
    sequence.spec = replace(sequence.spec, media=(replace(sequence.spec.media[0], first_token=20),))
    assert sequence.num_ready == 20
    sequence.waits_for_all = True
    assert sequence.num_ready == 0
    sequence.embeddings[0] = torch.zeros(50, 1)
    assert sequence.num_ready == 80
