"""Trees, the batched encoder, and a training run that stops and goes on."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from models.demo.batches import num_tokens, pack
from models.demo.folder import image_processor, model_config
from models.demo.learner import Learner
from models.demo.questions import FAMILIES, random_example
from models.demo.scenes import render
from models.demo.train import parse, train
from models.demo.trees import IGNORED, TreeWriter


def _prompt(tokenizer: PreTrainedTokenizerFast, question: str, pictures: int) -> str:
    parts: list[dict[str, str]] = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert isinstance(rendered, str)
    return rendered


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_is_the_chat_templates_conversation(
    tokenizer: PreTrainedTokenizerFast, writer: TreeWriter, family: str
) -> None:
    example = random_example(random.Random(9), family)
    tree = writer.write([example])
    prompt = _prompt(tokenizer, example.question, len(example.scenes))
    opening, *rest = prompt.split("<|image_pad|>")
    for (_, grid, _), part in zip(tree.pictures, rest, strict=True):
        opening += "<|image_pad|>" * num_tokens(grid) + part
    prompt = opening
    assert tree.tokens == tokenizer.encode(f"{prompt}{example.answer}<|im_end|>")
    assert tree.labels[-1] == tokenizer.eos_token_id


def test_a_packed_branch_is_answered_as_the_model_itself_would(
    tokenizer: PreTrainedTokenizerFast, writer: TreeWriter
) -> None:
    torch.manual_seed(0)
    model: Any = Qwen2_5_VLForConditionalGeneration(model_config(tokenizer))
    model.eval()
    rng = random.Random(1)
    examples = [random_example(rng, "two_pictures")]
    tree = writer.write([*examples, random_example(rng, "sum")])
    filler = writer.write([random_example(rng, "describe")])
    packed = pack([[filler, tree]], len(filler.tokens) + len(tree.tokens))
    with torch.no_grad():
        ours, _ = Learner(model, "cpu", half=False)._predict(packed)
        alone = writer.write(examples)
        inputs = image_processor()([render(scene) for scene in examples[0].scenes])
        tokens = torch.tensor([alone.tokens])
        expected = model(
            input_ids=tokens,
            pixel_values=torch.from_numpy(inputs["pixel_values"]),
            image_grid_thw=torch.from_numpy(inputs["image_grid_thw"]),
            mm_token_type_ids=(tokens == model.config.image_token_id).int(),
        ).logits[0, :-1]
    learned = [label != IGNORED for label in alone.labels[1:]]
    count = sum(learned)
    start = sum(label != IGNORED for label in filler.labels)
    assert torch.allclose(ours[start : start + count], expected[torch.tensor(learned)], atol=1e-4)


def test_training_resumes_where_it_stopped_and_writes_a_loadable_folder(tmp_path: Path) -> None:
    words = f"--out {tmp_path}/out --state {tmp_path}/state.pt --rows 1 --parts 2 --held-out 1 --no-half"
    words += " --evaluate-every 2 --threads 1 --workers 0 --device cpu"
    train(parse([*words.split(), "--steps", "2"]))
    shares = train(parse([*words.split(), "--steps", "4", "--resume"]))
    assert set(shares) == set(FAMILIES)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|im_end|>"
