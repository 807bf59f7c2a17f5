"""A model of a profile's costs in the place of one that computes."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, UnidentifiedImageError

from core.families import load_family
from core.profile import Profile
from core.sequence import MediaSpan
from stage_servers.emulation.device import EmulatedDevice
from stage_servers.emulation.runner import EmulatedRunner
from stage_servers.engine.families.adapter import PixelInput
from stage_servers.engine.media import MediaError

if TYPE_CHECKING:
    from stage_servers.engine.records import EngineListener

NUM_LAYERS = 2  # so that KV leaves in parts, as from a real model
HEAD_DIM = 4  # a token's marks (runner.py) fit in, and thousands of blocks take little memory
EMBEDDING_WIDTH = 4


class EmulatedModel:
    """Implements ServedModel for a model folder, of which only configs are read, and a profile.

    KV and embeddings are a few bytes a token, so that blocks, leases and transfers are the real ones and a
    pool as large as the profile's takes little memory.
    """

    def __init__(self, path: Path, profile: Profile, time_scale: float = 1.0) -> None:
        """Raises ModelError naming what the folder lacks, ValueError for a time scale that is none."""
        self.path = path
        self.profile = profile
        self.description = load_family(path)
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.attention_backend = "emulated"
        self._clock = EmulatedDevice(time_scale)

    @property
    def fingerprint(self) -> str:
        return self.description.fingerprint

    @property
    def context_tokens(self) -> int:
        return self.description.context_tokens

    @property
    def num_layers(self) -> int:
        return NUM_LAYERS

    @property
    def num_kv_heads(self) -> int:
        return 1

    @property
    def head_dim(self) -> int:
        return HEAD_DIM

    @property
    def embedding_width(self) -> int:
        return EMBEDDING_WIDTH

    @property
    def kv_planes(self) -> int:
        return 2 * NUM_LAYERS

    @property
    def kv_token_elements(self) -> int:
        return HEAD_DIM

    def preprocess(self, data: bytes, span: MediaSpan) -> PixelInput:
        """Takes the profile's time for the picture's pixels; raises MediaError if it is no picture."""
        try:
            with Image.open(io.BytesIO(data)) as image:
                num_pixels = image.width * image.height
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise MediaError(f"picture: cannot be decoded ({error})") from None
        time.sleep(self.profile.encode.preprocess_s(num_pixels) * self._clock.time_scale)
        return PixelInput(torch.empty(0), span.grid, span.num_tokens)

    def encode(self, inputs: Sequence[PixelInput]) -> list[torch.Tensor]:
        """One [num_tokens, 4] per input, after the time that they take one after the other."""
        (embeddings,) = self.encode_in_parts(inputs, 1)
        assert embeddings is not None
        return embeddings

    def encode_in_parts(
        self, inputs: Sequence[PixelInput], num_parts: int
    ) -> Iterator[list[torch.Tensor] | None]:
        """As `encode`, each part after its share of the time; None after all but the last."""
        seconds = sum(self.profile.encode.encode_s(each.num_tokens) for each in inputs)
        for number in range(num_parts):
            self._clock.work(seconds / num_parts)
            if number + 1 < num_parts:
                yield None
        yield [torch.full((each.num_tokens, EMBEDDING_WIDTH), float(each.num_tokens)) for each in inputs]

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        return sum(sizes)

    def positions(self, num_tokens: int, spans: Sequence[MediaSpan]) -> tuple[torch.Tensor, int]:  # noqa: ARG002
        return torch.zeros(1, 1, dtype=torch.int64).expand(3, num_tokens), 0

    def make_runner(
        self, pool: torch.Tensor, block_tokens: int, listener: EngineListener | None
    ) -> EmulatedRunner:
        usable = [
            token
            for token in range(self.description.vocab_size)
            if token not in self.description.eos_token_ids | self.description.media_token_ids
        ]
        return EmulatedRunner(
            self.profile.step,
            self._clock,
            pool,
            block_tokens,
            listener,
            vocab_size=self.description.vocab_size,
            usable=usable,
        )

    def note_rest(self) -> None:
        self._clock.note_rest()

    def close(self) -> None:
        """Nothing is held."""
