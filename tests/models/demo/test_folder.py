"""Tokenizer, chat template and processor of the demo model."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import allclose, from_numpy
from transformers import PreTrainedTokenizerFast

from models.demo.folder import SPECIAL_TOKENS, TURN_END, image_processor, train_tokenizer
from models.demo.pictures import normalise, to_patches

PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("text", ["What is left of it?", "naïve 漢字 🙂\n\ttab", "", " 12, 13."])
def test_any_text_survives_the_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_the_tokenizer_repeats(tokenizer: PreTrainedTokenizerFast) -> None:
    assert train_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_special_tokens_are_single(tokenizer: PreTrainedTokenizerFast) -> None:
    assert all(len(tokenizer.encode(token)) == 1 for token in SPECIAL_TOKENS)
    assert tokenizer.eos_token == TURN_END


def test_template_takes_strings_and_parts(tokenizer: PreTrainedTokenizerFast) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "That."},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{PICTURE}What?<|im_end|>\n"
        "<|im_start|>assistant\nThat.<|im_end|>\n"
    )


def test_template_opens_the_answer_and_adds_no_system_turn(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("size", [(112, 112), (224, 224), (160, 160), (224, 56), (150, 100)])
def test_patches_are_those_of_the_processor(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    grid, patches = to_patches(image)
    expected = image_processor()(image, return_tensors="pt")
    assert expected["image_grid_thw"].tolist() == [[1, *grid]]
    frames = expected["pixel_values"].view(len(patches), 3, 2, -1)
    ours = normalise(from_numpy(patches)).view(len(patches), 3, 1, -1)
    assert allclose(ours.expand_as(frames), frames, atol=1e-5)
