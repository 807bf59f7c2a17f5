"""Writes a random-weight checkpoint of the real architecture, for speed work.

    python benchmarks/make_checkpoint.py --preset 120m --out DIR [--seed S] [--device cuda:0]

The folder is whole: config, bfloat16 weights, tokenizer, chat template, processor. Greedy
decoding never meets an end token: the output head's rows of all special tokens are zero and
every other row is not, so that the best logit is above theirs. A GPU draws a large checkpoint in seconds,
other numbers than the CPU.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MAX_SHARD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes of one checkpoint; the text model's first, then the encoder's."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_ffn: int
    full_attention_blocks: tuple[int, ...]
    context_tokens: int = 8192
    max_picture_px: int = 448 * 448

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def rotary_sections(self) -> list[int]:
        """Time, height and width shares of half a head, about 1 : 1.5 : 1.5."""
        half = self.head_dim // 2
        side = half * 3 // 8
        return [half - 2 * side, side, side]


PRESETS = {
    "tiny": Preset(64, 3, 4, 2, 128, 512, 32, 2, 2, 64, (1,), 2048, 224 * 224),
    # For emulated devices: a real picture processor and a long context, next to no weights.
    "emulated": Preset(64, 1, 2, 1, 64, 1024, 32, 1, 1, 64, (0,), 131072, 28 * 28 * 16384),
    "120m": Preset(768, 12, 12, 4, 2816, 16384, 384, 8, 6, 1024, (3, 7)),
    "2b": Preset(2048, 28, 16, 4, 6144, 65536, 1024, 24, 16, 2816, (5, 11, 17, 23), 32768),
    # The sizes of Qwen2.5-VL-7B-Instruct, as its config.json has them.
    "7b": Preset(
        3584, 28, 28, 4, 18944, 152064, 1280, 32, 16, 3420, (7, 15, 23, 31), 128000, 28 * 28 * 16384
    ),
}


def write_checkpoint(out: Path, preset: Preset, seed: int, device: str = "cpu") -> int:
    """Writes the folder; returns the number of parameters."""
    out.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(out, preset.vocabulary)
    _write_json(out / "config.json", _config(preset, ids))
    _write_json(out / "generation_config.json", {"do_sample": False, "eos_token_id": ids["<|im_end|>"]})
    _write_json(out / "preprocessor_config.json", _processor(preset))
    return _write_weights(out, torch.Generator(device).manual_seed(seed), sorted(ids.values()))


def _write_tokenizer(out: Path, vocabulary: int) -> dict[str, int]:
    """Byte-level, no merges: special tokens right behind the bytes, words of filler up to the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    filler = vocabulary - len(alphabet) - len(SPECIAL_TOKENS)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [a + b + c for a in letters for b in letters for c in letters]
    words += [word + letter for word in words for letter in letters[: 1 + filler // len(words)]]
    table = {token: index for index, token in enumerate([*alphabet, *words[:filler]])}
    tokenizer = Tokenizer(models.BPE(vocab=table, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    _write_json(out / "tokenizer_config.json", settings | {"clean_up_tokenization_spaces": False})
    return {token: len(table) + place for place, token in enumerate(SPECIAL_TOKENS)}


def _config(preset: Preset, ids: dict[str, int]) -> dict[str, Any]:
    text = {
        "model_type": "qwen2_5_vl_text",
        "vocab_size": preset.vocabulary,
        "hidden_size": preset.hidden,
        "intermediate_size": preset.ffn,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "num_key_value_heads": preset.kv_heads,
        "max_position_embeddings": preset.context_tokens,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000000.0,
            "mrope_section": preset.rotary_sections,
        },
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": False,
    }
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "depth": preset.vision_depth,
        "hidden_size": preset.vision_hidden,
        "intermediate_size": preset.vision_ffn,
        "num_heads": preset.vision_heads,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": list(preset.full_attention_blocks),
        "out_hidden_size": preset.hidden,
    }
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "bfloat16",
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
    }


def _processor(preset: Preset) -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 56 * 56, "longest_edge": preset.max_picture_px},
    }


def _write_weights(out: Path, generator: torch.Generator, special: list[int]) -> int:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        shapes = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(out)).state_dict()
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = MAX_SHARD_BYTES
    for name, empty in shapes.items():
        weight = _random(name, empty.shape, generator)
        if name == "lm_head.weight":
            weight[special] = 0
        if weight.nbytes > room:
            shards.append({})
            room = MAX_SHARD_BYTES
        shards[-1][name] = weight
        room -= weight.nbytes
    _write_shards(out, shards)
    return sum(weight.numel() for weight in shapes.values())


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Activations of order one at every depth, and an output head that makes logits differ."""
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if len(shape) == 1:
        noise = noise * 0.05 + (1.0 if "norm" in name or "ln_q" in name else 0.0)
    elif "embed_tokens" not in name:
        noise = noise / shape[1:].numel() ** 0.5
    return noise.to(torch.bfloat16).cpu()


def _write_shards(out: Path, shards: list[dict[str, torch.Tensor]]) -> None:
    if len(shards) == 1:
        save_file(shards[0], out / "model.safetensors", {"format": "pt"})
        return
    names = [f"model-{place:05d}-of-{len(shards):05d}.safetensors" for place in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, out / name, {"format": "pt"})
    places = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    total = sum(weight.nbytes for shard in shards for weight in shard.values())
    _write_json(
        out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places}
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="120m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="what draws the weights")
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    count = write_checkpoint(arguments.out, preset, arguments.seed, arguments.device)
    print(f"{arguments.out}: {arguments.preset}, {count / 1e6:.1f} M parameters, bfloat16")


if __name__ == "__main__":
    main()
