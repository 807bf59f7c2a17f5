"""Ask fresh questions and print the share of exact answers per family; exit 1 if one is under 95 %.

python models/demo/evaluate.py --seed 1                        in this process, transformers
python models/demo/evaluate.py --seed 1 --address HOST:PORT    a running cluster
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.demo.folder import CHECKPOINT, IMAGE_PAD
from models.demo.pictures import MERGE
from models.demo.questions import FAMILIES, Example, random_example
from models.demo.scenes import render

TARGET = 0.95
MAX_TOKENS = 64
BATCH = 50
Answerer = Callable[[Sequence[Example]], list[str]]


def fresh_examples(seed: int, count: int) -> list[Example]:
    """Count examples of each family; training draws from other seeds."""
    rng = random.Random(f"evaluate {seed}")
    return [random_example(rng, family) for family in FAMILIES for _ in range(count)]


def shares(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """Share of answers equal to the right one, letter by letter, by family."""
    asked = Counter(example.family for example in examples)
    right = Counter(
        example.family for example, answer in zip(examples, answers, strict=True) if answer == example.answer
    )
    return {family: right[family] / asked[family] for family in asked}


def content(example: Example) -> list[dict[str, Any]]:
    """The message's parts: the pictures, then the question."""
    pictures = [{"type": "image", "image": render(scene)} for scene in example.scenes]
    return [*pictures, {"type": "text", "text": example.question}]


def local_answerer(folder: Path, dtype: str) -> Answerer:
    """Answers by transformers' own greedy generation, in batches."""
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        Qwen2_5_VLForConditionalGeneration,
    )

    model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processors: Any = AutoImageProcessor
    processor = processors.from_pretrained(folder, backend="pil")

    def answer(examples: Sequence[Example]) -> list[str]:
        pictures = [render(scene) for example in examples for scene in example.scenes]
        vision = dict(processor(pictures, return_tensors="pt")) if pictures else {}
        grids = iter(vision["image_grid_thw"].prod(1).tolist()) if pictures else iter(())
        prompts = [_prompt(tokenizer, example, grids) for example in examples]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True)
        if pictures:
            vision["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
        length = inputs["input_ids"].shape[1]
        written = model.generate(**inputs, **vision, max_new_tokens=MAX_TOKENS, do_sample=False)
        return [str(text) for text in tokenizer.batch_decode(written[:, length:], True)]

    return answer


def _prompt(tokenizer: Any, example: Example, grids: Any) -> str:
    """The chat template's text, with as many picture tokens as each picture takes."""
    messages = [{"role": "user", "content": content(example)}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    opening, *rest = text.split(IMAGE_PAD)
    return opening + "".join(IMAGE_PAD * (next(grids) // MERGE**2) + part for part in rest)


def cluster_answerer(address: str) -> Answerer:
    """Answers of a running cluster, one request after the other."""
    from elasticmm_client import Client

    client = Client(address)

    def answer(examples: Sequence[Example]) -> list[str]:
        return [_ask(client, example) for example in examples]

    return answer


def _ask(client: Any, example: Example) -> str:
    messages = [{"role": "user", "content": content(example)}]
    events = client.generate(messages=messages, max_tokens=MAX_TOKENS, temperature=0.0)
    return "".join(event.text for event in events)


def evaluate(answerer: Answerer, seed: int, count: int) -> dict[str, float]:
    examples = fresh_examples(seed, count)
    answers: list[str] = []
    for start in range(0, len(examples), BATCH):
        answers += answerer(examples[start : start + BATCH])
    return shares(examples, answers)


def print_table(found: dict[str, float], count: int) -> None:
    print(f"{'family':<14}{'asked':>7}{'exact':>9}")
    for family, share in found.items():
        print(f"{family:<14}{count:>7}{share:>9.1%}{'' if share >= TARGET else '  under 95 %'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="HOST:PORT of a running cluster")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="questions per family")
    parser.add_argument("--folder", type=Path, default=CHECKPOINT)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    answerer = (
        cluster_answerer(arguments.address)
        if arguments.address
        else local_answerer(arguments.folder, arguments.dtype)
    )
    found = evaluate(answerer, arguments.seed, arguments.count)
    print_table(found, arguments.count)
    return 0 if min(found.values()) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
