"""The model's folder in the Hugging Face layout: tokenizer, processor, configs, weights."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from models.demo.questions import FAMILIES, WORDS, random_example
from models.demo.scenes import SIZE_PX

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE / "checkpoint"
VOCABULARY_SIZE = 768
TOKENIZER_EXAMPLES = 4000
MAX_POSITIONS = 4096
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    TURN_START,
    TURN_END,
    VISION_START,
    VISION_END,
    IMAGE_PAD,
    VIDEO_PAD,
)


def train_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the demo's own sentences; any UTF-8 text survives the round trip."""
    rng = random.Random(seed)
    lines = [f"{role}\n" for role in ("system", "user", "assistant") for _ in range(50)]
    lines += [word for word in WORDS for _ in range(5)] + [f" {word}" for word in WORDS] * 5
    for index in range(TOKENIZER_EXAMPLES):
        example = random_example(rng, FAMILIES[index % len(FAMILIES)])
        lines += [example.question, example.answer]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    wrapped: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = wrapped(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        chat_template=(HERE / "chat_template.jinja").read_text(encoding="utf-8"),
    )
    return fast


def image_processor() -> Qwen2VLImageProcessorPil:
    """Every picture is brought to about 112 x 112 pixels: 64 patches, 16 tokens."""
    return Qwen2VLImageProcessorPil(min_pixels=SIZE_PX * SIZE_PX, max_pixels=SIZE_PX * SIZE_PX)


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """About 3 million parameters; grouped-query attention, windows of 4 x 4 patches."""
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],
        },
        "bos_token_id": None,
        "eos_token_id": ids[TURN_END],
        "pad_token_id": ids[END_OF_TEXT],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 192,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def write_folder(
    folder: Path,
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write the whole folder, the weights rounded to bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded: Any = Qwen2_5_VLForConditionalGeneration(model.config)
    rounded.to(torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    generation: Any = GenerationConfig
    rounded.generation_config = generation(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    _name_processor(folder)


def _name_processor(folder: Path) -> None:
    """Name the classes that AutoProcessor and serving systems look for."""
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["processor_class"] = "Qwen2_5_VLProcessor"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
