"""The Qwen-VL families, whose pictures are resized to a grid of merged patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.families.family import Family
from core.families.folder import ModelError, fingerprint, read_json, read_processor
from core.families.media import PatchLayout

ARCHITECTURES = ("Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration")

# What the image processor takes where its config is silent.
_MIN_PIXELS = 56 * 56
_MAX_PIXELS = 28 * 28 * 1280
_PATCH_PX = 14
_MERGE = 2


def load(folder: Path) -> Family:
    config = read_json(folder, "config.json")
    text = config.get("text_config", config)
    processor = read_processor(folder)
    return Family(
        architecture=config["architectures"][0],
        fingerprint=fingerprint(folder),
        context_tokens=_number(text, "max_position_embeddings"),
        vocab_size=_number(text, "vocab_size"),
        eos_token_ids=_eos_token_ids(folder, config, text),
        placeholder_token_id=_number(config, "image_token_id"),
        media_token_ids=_media_token_ids(config),
        patches=_patches(processor),
        media_settings=processor,
    )


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int):
        raise ModelError(f"config.json: lacks {name}")
    return value


def _media_token_ids(config: dict[str, Any]) -> frozenset[int]:
    names = (
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "vision_token_id",
    )
    return frozenset(config[name] for name in names if isinstance(config.get(name), int))


def _eos_token_ids(folder: Path, config: dict[str, Any], text: dict[str, Any]) -> frozenset[int]:
    """As generation takes them: the generation config's, else the text model's."""
    found = None
    if (folder / "generation_config.json").is_file():
        found = read_json(folder, "generation_config.json").get("eos_token_id")
    for source in (text, config):
        found = source.get("eos_token_id") if found is None else found
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _patches(processor: dict[str, Any]) -> PatchLayout:
    if processor.get("do_resize") is False:
        raise ModelError("preprocessor_config.json: do_resize false is not supported")
    size = processor.get("size") or {}
    return PatchLayout(
        patch_px=processor.get("patch_size", _PATCH_PX),
        merge=processor.get("merge_size", _MERGE),
        min_pixels=processor.get("min_pixels") or size.get("shortest_edge", _MIN_PIXELS),
        max_pixels=processor.get("max_pixels") or size.get("longest_edge", _MAX_PIXELS),
    )
