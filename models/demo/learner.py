"""One learner: the model, its two optimizers, a step, and a look at held-out answers."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from models.demo.batches import Batch, num_tokens
from models.demo.pictures import normalise
from models.demo.trees import IGNORED
from models.demo.vision import BatchedVision

VISION_RATE, PATCH_RATE, LANGUAGE_RATE, ADAM_RATE = 5e-3, 2e-3, 2.5e-3, 3e-3
WEIGHT_DECAY = 0.02
GRADIENT_NORM = 1.0
# Every new shape costs the CPU a freshly compiled kernel: sizes are rounded up to few values.
PICTURE_STEP, ANSWER_STEP = 2, 64


class Learner:
    """Trains the matrices of the blocks with Muon, everything else with AdamW.

    A step's batches are shared out to threads that work on one core each: on a busy machine a
    thread that gets less of its core takes fewer batches, and nobody waits inside an operation.
    """

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, device: str, half: bool, threads: int = 1
    ) -> None:
        self.model: Any = cast(Any, model).to(device)
        self._device = device
        self._half = half
        self._vision = BatchedVision(model.model.visual)
        # Muon wants matrices: the patch weights as one, over the same memory.
        self._patch_weight: Any = self.model.model.visual.patch_embed.proj.weight
        self._patch_matrix = nn.Parameter(self._patch_weight.detach().flatten(1))
        self._optimizers = _optimizers(model, self._patch_matrix)
        self._parameters = list(model.parameters())
        self._threads = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))

    def step(self, batches: Sequence[Batch], rate: float) -> float:
        """Learn from batches at a share (0 to 1) of the full rate; the mean loss of a token."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * rate
        answered = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
        found = list(self._threads.map(lambda batch: self._gradients(batch, answered), batches))
        for index, parameter in enumerate(self._parameters):
            parameter.grad = sum(gradients[index] for _, gradients in found[1:]) + found[0][1][index]
        torch.nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM)
        self._patch_matrix.grad = self._patch_weight.grad.flatten(1)
        for done in [self._threads.submit(each.step) for each in self._optimizers]:
            done.result()
        return sum(loss for loss, _ in found)

    def _gradients(self, batch: Batch, answered: int) -> tuple[float, tuple[torch.Tensor, ...]]:
        """This batch's part of the mean loss of all answered tokens, and its gradients."""
        logits, labels = self._predict(batch)
        loss = functional.cross_entropy(logits, labels, reduction="sum") / answered
        # A batch without pictures does not reach the vision encoder.
        gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        return loss.item(), gradients

    @torch.no_grad()
    def exact_shares(self, batch: Batch) -> dict[str, float]:
        """Share of exact answers by family.

        An answer whose every token is the likeliest after the right ones before it is the
        answer that greedy decoding gives.
        """
        logits, labels = self._predict(batch)
        right = (logits.argmax(-1) == labels).cpu()
        answers = torch.from_numpy(batch.answers[batch.labels != IGNORED])
        wrong = set(answers[~right].tolist())
        marks: dict[str, list[bool]] = defaultdict(list)
        for number, family in enumerate(batch.families):
            marks[family].append(number not in wrong)
        return {family: sum(each) / len(each) for family, each in marks.items()}

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self._device, torch.bfloat16, enabled=self._half)

    def _predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (answer tokens, vocabulary) in float32, and the tokens to predict."""
        with self._precision():
            embedded = self._embed(batch)
            hidden = self.model.model.language_model(
                inputs_embeds=embedded,
                position_ids=torch.from_numpy(batch.positions).to(self._device),
                attention_mask={"full_attention": batch.mask().to(self._device)},
                use_cache=False,
            ).last_hidden_state
            labels = torch.from_numpy(batch.labels).to(self._device)
            learned = labels != IGNORED
            known = hidden[learned]
            logits = self.model.lm_head(_padded(known, ANSWER_STEP))[: len(known)]
        return logits.float(), labels[learned]

    def _embed(self, batch: Batch) -> torch.Tensor:
        tokens = torch.from_numpy(batch.tokens).to(self._device)
        embedded = self.model.model.language_model.embed_tokens(tokens)
        flat: torch.Tensor = embedded.flatten(0, 1)
        for group in batch.pictures:
            patches = normalise(torch.from_numpy(group.patches).to(self._device))
            patches = _padded(patches, PICTURE_STEP)
            features = self._vision.encode(patches, group.grid)[: len(group.starts)]
            steps = torch.arange(num_tokens(group.grid))
            places = (torch.from_numpy(group.starts)[:, None] + steps).flatten().to(self._device)
            flat = flat.index_copy(0, places, features.flatten(0, 1).to(flat.dtype))
        return flat.view(*batch.tokens.shape, -1)


def _padded(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Zero rows added up to the next multiple of step."""
    missing = -len(rows) % step
    return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))


def _optimizers(
    model: Qwen2_5_VLForConditionalGeneration, patch_matrix: nn.Parameter
) -> list[torch.optim.Optimizer]:
    """Every group keeps its full rate under "rate"."""
    vision: list[nn.Parameter] = []
    language: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed_tokens" not in name:
            (vision if ".visual." in name else language).append(parameter)
        elif parameter.ndim <= 2:
            others.append(parameter)
    patch = {"params": [patch_matrix], "rate": PATCH_RATE}
    return [
        _muon([{"params": vision, "rate": VISION_RATE}, patch]),
        _muon([{"params": language, "rate": LANGUAGE_RATE}]),
        torch.optim.AdamW([{"params": others, "rate": ADAM_RATE}], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Muon(groups, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
