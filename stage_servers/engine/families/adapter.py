"""What a model family must tell the engine; everything else is the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from core.sequence import MediaSpan
from stage_servers.engine.attention.backend import AttentionShape, PagedStep

Pixels = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class PixelInput:
    """A media item ready for the encoder."""

    pixels: torch.Tensor  # [patches, values per patch] float32, on the CPU
    grid: tuple[int, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class MediaRows:
    """The rows of a packed step that come from media."""

    rows: torch.Tensor  # [media rows] int64, ascending
    values: torch.Tensor  # [media rows, embedding_width]


class FamilyAdapter(ABC):
    """A transformers model, taken apart into what the engine calls. Engine thread, inference mode."""

    # Regular expressions that bring names of stored weights to the module's names, applied in order.
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    @abstractmethod
    def build(cls, folder: Path) -> Any:
        """The transformers model of the folder's config; called inside a device context, loads no weights."""

    @classmethod
    @abstractmethod
    def image_processor(cls, folder: Path) -> Any:
        """transformers' image processor in its Pillow form."""

    @property
    @abstractmethod
    def text_model(self) -> Any: ...

    @property
    @abstractmethod
    def vision_model(self) -> Any: ...

    @property
    def text_config(self) -> Any:
        return self.text_model.config

    @property
    def attention_shape(self) -> AttentionShape:
        attention = self.text_model.layers[0].self_attn
        config = self.text_config
        return AttentionShape(
            config.num_attention_heads, config.num_key_value_heads, attention.head_dim, attention.scaling
        )

    @property
    def encoder_shape(self) -> AttentionShape | None:
        """Of the encoder's attention, where every row sees all of its part; None if it is another kind."""
        return None

    @property
    def has_usual_layers(self) -> bool:
        """Whether the text layers are of the form that fastpath knows."""
        return False

    @property
    def num_extras(self) -> int:
        """Per-layer tensors that travel with each media embedding."""
        return 0

    @abstractmethod
    def preprocess(
        self, processor: Any, image: Image.Image, max_pixels: int | None = None
    ) -> tuple[torch.Tensor, tuple[int, ...]]:
        """(pixels [patches, values], grid) of an RGB picture; called from worker threads.

        `max_pixels` in the place of the processor's own bound.
        """

    @property
    @abstractmethod
    def num_encoder_layers(self) -> int: ...

    @abstractmethod
    def encode_by_layer(self, inputs: Sequence[PixelInput]) -> Generator[None, None, list[torch.Tensor]]:
        """One vision forward for all inputs that stops behind every layer.

        Returns per input [num_tokens, hidden * (1 + num_extras)], the same wherever others ran in between.
        """

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        """Tokens that the encoder computes for items of these sizes in one forward; packed, it is theirs."""
        return sum(sizes)

    @abstractmethod
    def positions(self, num_tokens: int, spans: Sequence[MediaSpan]) -> tuple[torch.Tensor, int]:
        """Rotary positions [3, num_tokens] of a prompt, and position minus index of any token after it."""

    @abstractmethod
    def embed(self, token_ids: torch.Tensor, media: MediaRows | None) -> torch.Tensor:
        """What the first text layer takes in, [rows, hidden]."""

    def extras(self, media: MediaRows | None) -> list[torch.Tensor]:  # noqa: ARG002
        """[media rows, hidden] to be added to the media rows behind each of the first layers."""
        return []

    @abstractmethod
    def forward_text(
        self, token_ids: torch.Tensor, positions: torch.Tensor, media: MediaRows | None, paged: PagedStep
    ) -> torch.Tensor:
        """token_ids [rows], positions [3, rows] to final hidden states [rows, hidden]."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] to [rows, vocabulary]."""
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits
