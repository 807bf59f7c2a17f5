"""Shapes of models from their published config.json, and the arithmetic that they stand for."""

from __future__ import annotations

from dataclasses import dataclass

from core.profile import MediaRule

VALUE_BYTES = 2  # bfloat16


@dataclass(frozen=True, slots=True)
class TextShape:
    """The language model. Its cross-attention layers have no self-attention: K and V come from media."""

    layers: int
    cross_layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int  # of a gated feed-forward: three matrices
    vocabulary: int

    @property
    def self_layers(self) -> int:
        return self.layers - self.cross_layers

    @property
    def kv_width(self) -> int:
        return 2 * self.kv_heads * self.head_dim

    @property
    def kv_weights(self) -> int:
        """Weights of one layer that make K and V."""
        return self.hidden * self.kv_width

    @property
    def token_weights(self) -> int:
        """Weights of all layers that a token of the sequence is multiplied with."""
        attention = 2 * self.hidden * self.heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.ffn) + self.self_layers * self.kv_weights

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def pair_flops(self) -> int:
        """Of one token that attends to another, all self-attention layers: scores, then the weighted sum."""
        return 4 * self.self_layers * self.heads * self.head_dim

    @property
    def kv_bytes_per_token(self) -> int:
        return self.self_layers * self.kv_width * VALUE_BYTES


@dataclass(frozen=True, slots=True)
class TowerShape:
    """The vision tower."""

    layers: int
    full_layers: int  # those that attend over the whole picture; the others within windows
    window_patches: int
    hidden: int
    ffn: int
    ffn_matrices: int  # 3 where gated
    patch_values: int  # numbers in one patch
    patches_per_token: int
    projector_weights: int  # applied once a token

    @property
    def patch_weights(self) -> int:
        layer = 4 * self.hidden**2 + self.ffn_matrices * self.hidden * self.ffn
        return self.layers * layer + self.patch_values * self.hidden

    @property
    def num_weights(self) -> int:
        return self.patch_weights + self.projector_weights

    @property
    def flops_per_token(self) -> float:
        """Matrix products and window attention of the patches of one token."""
        windowed = 4 * (self.layers - self.full_layers) * self.hidden * self.window_patches
        return self.patches_per_token * (2 * self.patch_weights + windowed) + 2 * self.projector_weights

    @property
    def flops_per_token2(self) -> float:
        """Attention over the whole picture, times the square of its tokens."""
        return 4 * self.full_layers * self.hidden * self.patches_per_token**2


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    text: TextShape
    tower: TowerShape
    media: MediaRule
    sources: tuple[str, ...]

    @property
    def is_cross_attention(self) -> bool:
        return self.text.cross_layers > 0

    @property
    def weight_bytes(self) -> int:
        text = self.text
        cross = text.cross_layers * text.kv_weights
        ends = 2 * text.head_weights  # input embedding and head
        return VALUE_BYTES * (text.token_weights + cross + ends + self.tower.num_weights)


QWEN = Model(
    name="Qwen2.5-VL-7B",
    text=TextShape(
        layers=28,
        cross_layers=0,
        hidden=3584,
        heads=28,
        kv_heads=4,
        head_dim=128,
        ffn=18944,
        vocabulary=152064,
    ),
    tower=TowerShape(
        layers=32,
        full_layers=4,
        window_patches=64,
        hidden=1280,
        ffn=3420,
        ffn_matrices=3,
        patch_values=3 * 2 * 14 * 14,
        patches_per_token=4,
        projector_weights=5120 * 5120 + 5120 * 3584,
    ),
    media=MediaRule("patches", patch_px=28, min_pixels=3136, max_pixels=12845056),
    sources=(
        "Model: config.json and preprocessor_config.json of Qwen/Qwen2.5-VL-7B-Instruct on "
        "Hugging Face: 28 layers, hidden 3584, 28 heads, 4 KV heads, feed-forward 18944, vocabulary "
        "152064; vision tower of 32 layers, hidden 1280, feed-forward 3420, patches of 14 px merged 2 x 2. "
        "Four of its layers (7, 15, 23, 31) attend over the whole picture, the others within windows of "
        "112 px, which are 64 patches.",
    ),
)

LLAMA = Model(
    name="Llama-3.2-Vision-11B",
    text=TextShape(
        layers=40,
        cross_layers=8,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        ffn=14336,
        vocabulary=128256,
    ),
    tower=TowerShape(
        layers=40,
        full_layers=40,
        window_patches=0,
        hidden=1280,
        ffn=5120,
        ffn_matrices=2,
        patch_values=3 * 14 * 14,
        patches_per_token=1,
        projector_weights=7680 * 4096,
    ),
    media=MediaRule("tiles", patch_px=560, max_tiles=4, tile_tokens=1601),
    sources=(
        "Model: config.json of meta-llama/Llama-3.2-11B-Vision-Instruct on Hugging Face: 40 layers, 8 of "
        "them cross-attention (3, 8, …, 38), hidden 4096, 32 heads, 8 KV heads, feed-forward 14336, "
        "vocabulary 128256; vision tower of 32 local and 8 global layers, hidden 1280, feed-forward 5120, "
        "up to 4 tiles of 560 px with 1601 tokens each, output 7680 projected to 4096. All its layers "
        "attend over all tiles of a picture.",
        "Media tokens enter by cross-attention in 8 layers, against 32 of self-attention: each weighs 0.25 "
        "of a token of the sequence in attention and KV. Making their K and V is counted with the encode. "
        "Simulation only.",
        "Text-only requests are charged for the cross-attention layers, which they could skip (20% of the "
        "layers).",
    ),
)
