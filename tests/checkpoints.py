"""Tiny random-weight checkpoints of every family, whole model folders of a few hundred kilobytes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from benchmarks.make_checkpoint import CHAT_TEMPLATE, SPECIAL_TOKENS

_SENTENCES = (
    "what is the colour of the large circle in the picture? ",
    "The picture shows a red square. ",
) * 4
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, "spatial_merge_size": 2}


def build_checkpoint(path: Path, family: str = "first", *, seed: int = 0, **text: int) -> Path:
    """Writes a float32 model folder of family "first" or "second" to `path` and returns it.

    Context 2048 tokens, pictures up to 224x224 pixels; weights of such a size that
    greedy answers differ with prompt and picture. `text` are settings of the
    language model that are to be others.
    """
    ids = write_tokenizer(path)
    model, patch_px = _first(ids, text) if family == "first" else _second(ids, text)
    fill_random(model, seed)
    model.save_pretrained(path)
    write_processor(path, patch_px=patch_px, min_pixels=56 * 56, max_pixels=224 * 224)
    write_json(path / "generation_config.json", {"do_sample": False, "eos_token_id": ids["<|im_end|>"]})
    return path


def write_tokenizer(path: Path) -> dict[str, int]:
    """Byte-level BPE of about 300 tokens with its chat template; returns the special tokens' ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": list(SPECIAL_TOKENS[3:]),
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
        },
    )
    return {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS} | {
        "": tokenizer.get_vocab_size()
    }


def write_processor(path: Path, *, patch_px: int, min_pixels: int, max_pixels: int) -> None:
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "patch_size": patch_px,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
    }
    write_json(path / "preprocessor_config.json", settings)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def fill_random(model: Any, seed: int) -> None:
    """Weights under which greedy answers wander and depend on every part of the prompt.

    Plain initial weights make a model repeat one token, which tests nothing.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            noise = noise * 0.1 + (1.0 if "norm" in name or "ln_q" in name else 0.0)
        elif "embed_tokens" in name:
            noise = noise * 0.3
        else:
            noise = noise * (2.0 / weight[0].numel() ** 0.5)
        weight.data.copy_(noise)


def _common(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "dtype": "float32",
    }


def _text(ids: dict[str, int], changes: dict[str, int]) -> dict[str, Any]:
    return {
        **_TEXT,
        **changes,
        "vocab_size": ids[""],
        "eos_token_id": ids["<|im_end|>"],
        "bos_token_id": None,
    }


def _first(ids: dict[str, int], text: dict[str, int]) -> tuple[Any, int]:
    """Windowed and full vision attention, untied output head, biases in q, k, v."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    vision = {"intermediate_size": 64, "window_size": 56, "fullatt_block_indexes": [1], "patch_size": 14}
    config = Qwen2_5_VLConfig(
        text_config=_text(ids, text) | {"rope_parameters": rope},
        vision_config=_VISION | vision,
        tie_word_embeddings=False,
        **_common(ids),
    )
    return Qwen2_5_VLForConditionalGeneration(config), 14


def _second(ids: dict[str, int], text: dict[str, int]) -> tuple[Any, int]:
    """Per-layer extras for two text layers, norms on queries and keys, tied output head."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    vision = {
        "intermediate_size": 64,
        "patch_size": 16,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1],
    }
    config = Qwen3VLConfig(
        text_config=_text(ids, text) | {"rope_parameters": rope, "head_dim": 16, "tie_word_embeddings": True},
        vision_config=_VISION | vision,
        tie_word_embeddings=True,
        **_common(ids),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Qwen3VLForConditionalGeneration(config), 16
