"""The Qwen-VL families: three-dimensional rotary positions, and in the later one per-layer extras."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from core.sequence import MediaSpan
from stage_servers.engine.attention.backend import AttentionShape, PagedStep
from stage_servers.engine.families import qwen_vision
from stage_servers.engine.families.adapter import FamilyAdapter, MediaRows, PixelInput


class Qwen25VLAdapter(FamilyAdapter):
    """Pictures enter at the embedding layer only."""

    # Checkpoints keep the names of before the text model became a submodule.
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^visual\.", "model.visual."),
        (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
    )

    @classmethod
    def build(cls, folder: Path) -> Any:
        from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))

    @classmethod
    def image_processor(cls, folder: Path) -> Any:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        return Qwen2VLImageProcessorPil.from_pretrained(folder)

    @property
    def text_model(self) -> Any:
        return self.model.model.language_model

    @property
    def vision_model(self) -> Any:
        return self.model.model.visual

    @property
    def encoder_shape(self) -> AttentionShape:
        config = self.vision_model.config
        head_dim = config.hidden_size // config.num_heads
        return AttentionShape(config.num_heads, config.num_heads, head_dim, head_dim**-0.5)

    @property
    def has_usual_layers(self) -> bool:
        return True

    def preprocess(
        self, processor: Any, image: Image.Image, max_pixels: int | None = None
    ) -> tuple[torch.Tensor, tuple[int, ...]]:
        size = {} if max_pixels is None else {"size": dict(processor.size) | {"longest_edge": max_pixels}}
        found = processor(images=[image], **size)
        pixels = torch.as_tensor(found["pixel_values"], dtype=torch.float32)
        return pixels, tuple(int(size) for size in found["image_grid_thw"][0])

    @property
    def num_encoder_layers(self) -> int:
        return len(self.vision_model.blocks)

    def encode_by_layer(self, inputs: Sequence[PixelInput]) -> Generator[None, None, list[torch.Tensor]]:
        vision = self.vision_model
        pixels = torch.cat([item.pixels for item in inputs]).to(vision.device, vision.dtype)
        grids = torch.tensor([item.grid for item in inputs])
        features = yield from self._run_vision(pixels, grids)
        return list(torch.split(features, [item.num_tokens for item in inputs]))

    def _run_vision(self, pixels: torch.Tensor, grids: torch.Tensor) -> qwen_vision.Stops:
        return qwen_vision.windowed(self.vision_model, pixels, grids)

    def positions(self, num_tokens: int, spans: Sequence[MediaSpan]) -> tuple[torch.Tensor, int]:
        merge = self.model.config.vision_config.spatial_merge_size
        parts: list[torch.Tensor] = []
        token, position = 0, 0
        for span in spans:
            parts.append(_text_positions(position, span.first_token - token))
            position += span.first_token - token
            time, rows, columns = span.grid[0], span.grid[1] // merge, span.grid[2] // merge
            parts.append(position + torch.cartesian_prod(*map(torch.arange, (time, rows, columns))).T)
            position += max(rows, columns)
            token = span.end_token
        parts.append(_text_positions(position, num_tokens - token))
        return torch.cat(parts, dim=1), position - token

    def embed(self, token_ids: torch.Tensor, media: MediaRows | None) -> torch.Tensor:
        embeds: torch.Tensor = self.text_model.embed_tokens(token_ids)
        if media is None:
            return embeds
        return embeds.index_copy(0, media.rows, media.values[:, : embeds.shape[1]])

    def forward_text(
        self, token_ids: torch.Tensor, positions: torch.Tensor, media: MediaRows | None, paged: PagedStep
    ) -> torch.Tensor:
        out = self.text_model(
            inputs_embeds=self.embed(token_ids, media)[None],
            position_ids=positions[:, None],
            # A mapping rather than None: transformers then builds no mask, the attention knows its own.
            attention_mask={"full_attention": None, "sliding_attention": None},
            use_cache=False,
            paged=paged,
            **self._extra_arguments(media, len(token_ids)),
        )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden

    def _extra_arguments(self, media: MediaRows | None, num_rows: int) -> dict[str, Any]:  # noqa: ARG002
        """transformers' arguments for `extras`."""
        return {}


class Qwen3VLAdapter(Qwen25VLAdapter):
    """Each embedding carries one more tensor for each of the first text layers."""

    @classmethod
    def build(cls, folder: Path) -> Any:
        from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder))

    @property
    def num_extras(self) -> int:
        return len(self.model.config.vision_config.deepstack_visual_indexes)

    def _run_vision(self, pixels: torch.Tensor, grids: torch.Tensor) -> qwen_vision.Stops:
        return qwen_vision.with_extras(self.vision_model, pixels, grids)

    def extras(self, media: MediaRows | None) -> list[torch.Tensor]:
        return [] if media is None else list(media.values.chunk(1 + self.num_extras, dim=1)[1:])

    def _extra_arguments(self, media: MediaRows | None, num_rows: int) -> dict[str, Any]:
        if media is None:
            return {}
        mask = torch.zeros(1, num_rows, dtype=torch.bool, device=media.rows.device)
        mask[0, media.rows] = True
        return {"visual_pos_masks": mask, "deepstack_visual_embeds": self.extras(media)}


def _text_positions(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).expand(3, count)
