"""A loaded model: weights, shape and the calls that need no KV."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from core.families import Family
from core.sequence import MediaSpan
from stage_servers.engine.attention import registry
from stage_servers.engine.attention.backend import AttentionBackend
from stage_servers.engine.bulkpath import BulkPath
from stage_servers.engine.device import await_device
from stage_servers.engine.families.adapter import FamilyAdapter, PixelInput
from stage_servers.engine.fastpath import FastPath
from stage_servers.engine.gpu.path import GpuPath
from stage_servers.engine.media import MediaError, decode_picture
from stage_servers.engine.records import EngineListener
from stage_servers.engine.runner import Runner
from stage_servers.engine.weights import MappedFiles


class Model:
    """Made by `load_model`. `preprocess` may be called from any thread, the rest from the engine's."""

    def __init__(
        self,
        *,
        path: Path,
        description: Family,
        family: FamilyAdapter,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
        attention_backend: str,
        fast_path: FastPath | None,
        bulk_path: BulkPath | None,
        gpu_path: GpuPath | None,
        files: MappedFiles,
    ) -> None:
        self.path = path
        self.description = description
        self.family = family
        self.device = device
        self.dtype = dtype
        self.attention_backend = attention_backend
        self.fast_path = fast_path
        self.bulk_path = bulk_path
        self.gpu_path = gpu_path
        self._processor = processor
        self._files = files

    @property
    def config(self) -> Any:
        return self.family.model.config

    @property
    def fingerprint(self) -> str:
        return self.description.fingerprint

    @property
    def context_tokens(self) -> int:
        return self.description.context_tokens

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return self.description.eos_token_ids

    @property
    def num_layers(self) -> int:
        return int(self.family.text_config.num_hidden_layers)

    @property
    def num_kv_heads(self) -> int:
        return self.family.attention_shape.num_kv_heads

    @property
    def hidden_size(self) -> int:
        return int(self.family.text_config.hidden_size)

    @property
    def head_dim(self) -> int:
        return self.family.attention_shape.head_dim

    @property
    def embedding_width(self) -> int:
        """Values per media token: the hidden size, once more for every per-layer extra."""
        return self.hidden_size * (1 + self.family.num_extras)

    @property
    def kv_planes(self) -> int:
        return 2 * self.num_layers

    @property
    def kv_token_elements(self) -> int:
        """Values per token in one plane of the pool."""
        return self.num_kv_heads * self.head_dim

    def preprocess(self, data: bytes, span: MediaSpan) -> PixelInput:
        """Decodes and normalises a picture file; raises MediaError if broken or not what the span says."""
        pixels, grid = self.family.preprocess(self._processor, decode_picture(data), span.max_pixels)
        if grid != span.grid:
            raise MediaError(f"picture: its patch grid is {grid}, the prompt has room for {span.grid}")
        return PixelInput(pixels, grid, span.num_tokens)

    def encode(self, inputs: Sequence[PixelInput]) -> list[torch.Tensor]:
        """One [num_tokens, embedding_width] per input, from one vision forward."""
        (embeddings,) = self.encode_in_parts(inputs, 1)
        assert embeddings is not None
        return embeddings

    def encode_in_parts(
        self, inputs: Sequence[PixelInput], num_parts: int
    ) -> Iterator[list[torch.Tensor] | None]:
        """As `encode`, in so many parts of about equally many layers; None after all but the last."""
        layers = self.family.encode_by_layer(inputs)
        num_layers, done = self.family.num_encoder_layers, 0
        for number in range(1, num_parts + 1):
            until = num_layers * number // num_parts
            with torch.inference_mode():  # not while others run
                embeddings = _finish(layers) if number == num_parts else _advance(layers, until - done)
                await_device(self.device)  # what was only queued would hold others up unseen
            done = until
            yield embeddings

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        """Tokens that the encoder computes for items of these sizes in one forward."""
        return self.family.padded_tokens(sizes)

    def positions(self, num_tokens: int, spans: Sequence[MediaSpan]) -> tuple[torch.Tensor, int]:
        """Rotary positions [3, num_tokens] of a prompt, and position minus index of any token after it."""
        return self.family.positions(num_tokens, spans)

    def make_runner(self, pool: torch.Tensor, block_tokens: int, listener: EngineListener | None) -> Runner:
        return Runner(self, pool, block_tokens, listener)

    def make_attention(self) -> AttentionBackend:
        return registry.make(self.attention_backend, self.family.attention_shape)

    def note_rest(self) -> None:
        """A device that computes has a clock of its own."""

    def close(self) -> None:
        """Gives up this process's hold on converted weights; the model stays usable."""
        self._files.close()


_Layers = Generator[None, None, list[torch.Tensor]]


def _advance(layers: _Layers, count: int) -> list[torch.Tensor] | None:
    for _ in range(count):
        next(layers)
    return None


def _finish(layers: _Layers) -> list[torch.Tensor]:
    try:
        while True:
            next(layers)
    except StopIteration as end:
        embeddings: list[torch.Tensor] = end.value
        return embeddings
