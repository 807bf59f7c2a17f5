"""The reference answers of transformers, and the rule by which ours must equal them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.families import Family, load_family
from core.sampling import SamplingParams
from core.sequence import MediaSpan, SequenceSpec

NEAR_TIE = 1e-4
MAX_TIE_SHARE = 1e-4


@dataclass(frozen=True)
class Question:
    """A prompt with its pictures: token ids with one placeholder each, and PNG bytes."""

    token_ids: tuple[int, ...]
    pictures: tuple[bytes, ...] = ()
    max_pixels: int | None = None  # of each picture; None: as the processor is set


@dataclass(frozen=True)
class Reference:
    """What transformers generates, with the logit gap between best and second best at each token."""

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]


@dataclass
class Tally:
    """Counts compared tokens and those excused by a near tie."""

    num_tokens: int = 0
    num_ties: int = 0
    notes: list[str] = field(default_factory=list)

    def check(self) -> None:
        """At most one token in 10,000 may differ, and one at all in a small run."""
        print(f"{self.num_tokens} tokens compared, {self.num_ties} differ within {NEAR_TIE}: {self.notes}")
        assert self.num_ties <= max(1, MAX_TIE_SHARE * self.num_tokens)


class Oracle:
    """transformers' own model of a folder in float32."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForImageTextToText

        self.path = path
        self.family: Family = load_family(path)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        self._known: dict[tuple[Question, int], Reference] = {}

    def answer(self, question: Question, num_tokens: int) -> Reference:
        """Greedy, undisturbed, past any end token."""
        if (question, num_tokens) not in self._known:
            self._known[question, num_tokens] = self._generate(question, num_tokens)
        return self._known[question, num_tokens]

    def compare(self, question: Question, tokens: Sequence[int], tally: Tally) -> None:
        """Asserts that `tokens` answer the question as transformers would."""
        reference = self.answer(question, len(tokens))
        tally.num_tokens += len(tokens)
        differing = [
            i for i, pair in enumerate(zip(tokens, reference.tokens, strict=True)) if pair[0] != pair[1]
        ]
        if not differing:
            return
        assert reference.gaps[differing[0]] < NEAR_TIE, (
            f"token {differing[0]}: {tokens[differing[0]]} for {reference.tokens[differing[0]]}, "
            f"gap {reference.gaps[differing[0]]}"
        )
        self._compare_conditioned(question, tokens, differing[0], tally)

    def _compare_conditioned(
        self, question: Question, tokens: Sequence[int], first: int, tally: Tally
    ) -> None:
        """After a tie the answers part: each later token must be best given ours before it."""
        logits = self._conditioned_logits(question, tokens)
        for index in range(first, len(tokens)):
            best = logits[index].max()
            gap = float(best - logits[index, tokens[index]])
            assert gap < NEAR_TIE, f"token {index}: {gap} under the best"
            if gap > 0 or index == first:
                tally.num_ties += 1
                tally.notes.append(f"token {index}: gap {gap}")

    def _conditioned_logits(self, question: Question, tokens: Sequence[int]) -> torch.Tensor:
        """Those that each of `tokens` was drawn from.

        The answer goes in apart from the prompt: a placeholder in it stands for no picture.
        """
        with torch.inference_mode():
            self.model.model.rope_deltas = None
            prompt = self.model(**self._inputs(question), use_cache=True)
            answer = self.model(
                input_ids=torch.tensor([tokens]), past_key_values=prompt.past_key_values, use_cache=True
            )
            return torch.cat([prompt.logits[0, -1:], answer.logits[0, :-1]])

    def _generate(self, question: Question, num_tokens: int) -> Reference:
        with torch.inference_mode():
            self.model.model.rope_deltas = None
            out = self.model.generate(
                **self._inputs(question),
                max_new_tokens=num_tokens,
                min_new_tokens=num_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        top = [logits[0].topk(2).values for logits in out.logits]
        tokens = out.sequences[0, -num_tokens:].tolist()
        return Reference(tuple(tokens), tuple(float(pair[0] - pair[1]) for pair in top))

    def _inputs(self, question: Question) -> dict[str, Any]:
        prompt, _ = expand(self.family, question)
        ids = torch.tensor([prompt])
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.family.placeholder_token_id).long(),
        }
        if question.pictures:
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data in question.pictures]
            processor = image_processor(self.path)
            if question.max_pixels is not None:
                processor.size["longest_edge"] = question.max_pixels
            found = processor(images=images, return_tensors="pt")
            inputs |= {"pixel_values": found["pixel_values"], "image_grid_thw": found["image_grid_thw"]}
        return inputs


def image_processor(path: Path) -> Any:
    """transformers' own processor of a folder, in its Pillow form."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


def resized(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) to which transformers' processor brings a picture."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    new_height, new_width = smart_resize(height, width, factor, min_pixels, max_pixels)
    return new_width, new_height


def tile_canvas(width: int, height: int, max_tiles: int, tile_px: int) -> tuple[int, int]:
    """(width, height) of the canvas of tiles that transformers fits a picture into."""
    from transformers.models.mllama.image_processing_pil_mllama import get_optimal_tiled_canvas

    canvas_height, canvas_width = get_optimal_tiled_canvas(height, width, max_tiles, tile_px)
    return int(canvas_width), int(canvas_height)


def expand(family: Family, question: Question) -> tuple[tuple[int, ...], tuple[MediaSpan, ...]]:
    """The engine's prompt and spans of a question."""
    import hashlib

    items = []
    for data in question.pictures:
        with Image.open(io.BytesIO(data)) as image:
            items.append((hashlib.sha256(data).digest(), family.layout(*image.size, question.max_pixels)))
    return family.expand_placeholders(question.token_ids, items)


def make_question(
    family: Family, seed: int, *, num_text: int = 24, pictures: Sequence[tuple[int, int]] = ()
) -> Question:
    """Random text with random pictures of these sizes in it, each after some of the text."""
    rng = np.random.default_rng(seed)
    frame = sorted(family.media_token_ids - {family.placeholder_token_id})
    text = [int(token) for token in rng.integers(0, 256, num_text)]
    places = sorted(int(place) for place in rng.integers(0, num_text + 1, len(pictures)))
    for place in reversed(places):
        text[place:place] = [frame[0], family.placeholder_token_id, frame[1]]
    return Question(tuple(text), tuple(make_picture(rng, *size) for size in pictures))


def make_picture(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A PNG of coloured noise, coarse enough to survive resizing."""
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def make_spec(
    family: Family,
    question: Question,
    name: str,
    *,
    max_tokens: int = 128,
    outputs: tuple[int, ...] = (),
    **sampling: Any,
) -> SequenceSpec:
    prompt, spans = expand(family, question)
    params = SamplingParams(max_tokens=max_tokens, **sampling)
    return SequenceSpec(name, 0, prompt, params, spans, outputs)
