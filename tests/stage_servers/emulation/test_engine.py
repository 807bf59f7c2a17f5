"""The real engine over an emulated device: tokens by a function, KV that is checked, layers that leave."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.profile import Profile
from core.sampling import SamplingParams
from core.sequence import CacheUse, SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.settings import CacheSettings
from stage_servers.emulation import runner
from stage_servers.emulation.model import EmulatedModel
from stage_servers.emulation.runner import WrongKv
from stage_servers.engine.engine import Engine
from stage_servers.engine.records import EngineConfig, WrittenChunk
from tests.checkpoints import build_checkpoint

PROMPT = tuple(range(1, 101))


class Listener:
    def __init__(self) -> None:
        self.layers: list[tuple[int, int]] = []

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        self.layers += [(layer, chunk.num_tokens) for layer in layers for chunk in chunks]


class Rig:
    """One engine and its pool."""

    def __init__(
        self, model: EmulatedModel, *, num_blocks: int = 64, cache: CacheSettings | None = None
    ) -> None:
        self.pool = torch.zeros(model.kv_planes, num_blocks, 16, model.kv_token_elements)
        self.blocks = BlockAllocator(num_blocks)
        self.listener = Listener()
        self.cache = KvCache(self.pool, self.blocks, model.fingerprint, cache) if cache else None
        config = EngineConfig(64, 8, 16)
        self.engine = Engine(model, self.pool, self.blocks, config, self.listener, cache=self.cache)
        self.num_prefilled = 0

    def run(self) -> list[int]:
        tokens: list[int] = []
        while self.engine.has_work:
            out = self.engine.step()
            tokens += [token.token_id for token in out.tokens]
            self.num_prefilled += out.num_prefill_tokens
        return tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first", "first")


@pytest.fixture
def model(folder: Path, profile: Profile) -> EmulatedModel:
    return EmulatedModel(folder, profile, time_scale=0.01)


def make_spec(name: str = "r", *, seed: int = 0, outputs: tuple[int, ...] = ()) -> SequenceSpec:
    return SequenceSpec(name, 0, PROMPT, SamplingParams(max_tokens=20, seed=seed), (), outputs)


def test_tokens_depend_on_seed_prompt_and_index_alone(model: EmulatedModel) -> None:
    answers = []
    for seed in (0, 0, 1):
        rig = Rig(model)
        rig.engine.add_prefill(make_spec(seed=seed), hand_over=False)
        answers.append(rig.run())
        rig.blocks.check_integrity()
        assert rig.blocks.num_free == 64
    assert len(answers[0]) == 20
    assert answers[0] == answers[1] != answers[2]
    special = model.description.media_token_ids | model.description.eos_token_ids
    assert not special & set(answers[0])


def test_a_prompt_is_summed_up_once_however_long_the_answer(
    model: EmulatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def crc32(data: bytes) -> int:
        sizes.append(len(data))
        return zlib.crc32(data)

    monkeypatch.setattr(runner, "zlib", SimpleNamespace(crc32=crc32))
    rig = Rig(model)
    rig.engine.add_prefill(make_spec(), hand_over=False)
    assert len(rig.run()) == 20
    assert sizes.count(4 * len(PROMPT)) == 1


def test_layers_of_a_hand_over_leave_one_by_one(model: EmulatedModel) -> None:
    rig = Rig(model)
    rig.engine.add_prefill(make_spec(), hand_over=True)
    rig.run()
    assert rig.listener.layers == [(0, 64), (1, 64), (0, 36), (1, 36)]


def test_a_sequence_goes_on_elsewhere(model: EmulatedModel) -> None:
    alone = Rig(model)
    alone.engine.add_prefill(make_spec(), hand_over=False)
    wanted = alone.run()

    first, second = Rig(model), Rig(model)
    first.engine.add_prefill(make_spec(), hand_over=True)
    token = first.run()
    moved = second.blocks.allocate(len(first.engine.block_ids(("r", 0))))
    second.pool[:, moved] = first.pool[:, first.engine.block_ids(("r", 0))]
    second.engine.add_decode(make_spec(outputs=tuple(token)), moved, len(PROMPT))
    assert token + second.run() == wanted


def test_of_many_decodes_the_one_whose_kv_is_gone_is_found(model: EmulatedModel) -> None:
    rig = Rig(model)
    for name in ("a", "b", "c"):
        rig.engine.add_prefill(make_spec(name), hand_over=False)
    while rig.engine.load.num_prefilling:
        rig.engine.step()
    rig.engine.step()
    state = rig.engine.decode_state(("b", 0))
    last = state.num_tokens - 1
    rig.pool[:, state.block_ids[last // 16], last % 16] = 0
    with pytest.raises(WrongKv, match="'b', 0.*its last token"):
        rig.engine.step()


def test_kv_that_never_came_does_not_pass(model: EmulatedModel) -> None:
    rig = Rig(model)
    rig.engine.add_decode(make_spec(outputs=(5,)), rig.blocks.allocate(7), len(PROMPT))
    with pytest.raises(WrongKv, match="KV of tokens 0 to 100"):
        rig.run()


def test_a_prompt_that_comes_again_takes_no_time_for_what_is_cached(model: EmulatedModel) -> None:
    rig, use = Rig(model, cache=CacheSettings()), CacheUse(bytes(32), "t")
    answers = []
    for name in "ab":
        rig.engine.add_prefill(replace(make_spec(name), cache=use), hand_over=False)
        answers.append(rig.run())
    assert answers[0] == answers[1]
    assert rig.num_prefilled == len(PROMPT) + 100 % 16  # the second time only what comes after whole blocks
    rig.engine.check_integrity()


def test_kv_that_comes_back_from_the_host_is_what_was_written(model: EmulatedModel) -> None:
    cache = CacheSettings(host_bytes=1 << 20)
    rig, use = Rig(model, num_blocks=10, cache=cache), CacheUse(bytes(32), "t")
    for number in (1, 2, 1, 2):
        spec = replace(make_spec(f"r{rig.num_prefilled}"), prompt=(number,) * 100, cache=use)
        rig.engine.add_prefill(spec, hand_over=False)
        assert len(rig.run()) == 20
        rig.engine.check_integrity()
    assert rig.cache is not None
    assert rig.cache.book.stats.promoted
    assert rig.num_prefilled < 220
