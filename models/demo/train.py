"""Train the demo model from nothing and write its folder.

    python models/demo/train.py

Every five minutes the state is saved; --resume goes on from it.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from models.demo.batches import Batch, held_out_batch, random_batch
from models.demo.folder import (
    CHECKPOINT,
    model_config,
    train_tokenizer,
    write_folder,
)
from models.demo.learner import Learner
from models.demo.questions import FAMILIES
from models.demo.trees import TreeWriter

BASE_WEIGHTS = {
    "colour": 1.0,
    "shape": 1.0,
    "count": 1.4,
    "beside": 1.4,
    "describe": 1.6,
    "two_pictures": 1.6,
    "sum": 0.7,
    "repeat": 0.7,
    "counting": 0.5,
}
WARMUP_STEPS = 60
PREFETCH = 4
HELD_OUT_SEED = 7_000_003


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is told."""

    out: Path
    state: Path
    seed: int
    steps: int
    max_minutes: float
    rows: int
    parts: int
    threads: int
    workers: int
    device: str
    half: bool
    resume: bool
    evaluate_every: int
    held_out: int
    save_every_s: float


@dataclass(slots=True)
class Progress:
    """Where the run stands; errors is the smoothed held-out share of wrong answers by family."""

    step: int
    trained_s: float
    errors: dict[str, float]

    def weights(self) -> dict[str, float]:
        """Sampling weights: a family that lags is asked more often."""
        return {
            name: base * math.sqrt(min(max(self.errors[name], 0.03), 0.6))
            for name, base in BASE_WEIGHTS.items()
        }

    def note(self, shares: dict[str, float]) -> None:
        for name, share in shares.items():
            self.errors[name] = 0.6 * self.errors[name] + 0.4 * (1 - share)


@cache
def _writer(seed: int) -> TreeWriter:
    return TreeWriter(train_tokenizer(seed))


def _make_batches(settings: Settings, step: int, weights: dict[str, float]) -> list[Batch]:
    writer = _writer(settings.seed)
    seeds = [f"train {settings.seed} {step} {part}" for part in range(settings.parts)]
    return [random_batch(writer, seed, settings.rows, weights) for seed in seeds]


def steps(settings: Settings, progress: Progress) -> Iterator[list[Batch]]:
    """Each step's batches, made in other processes by the weights of PREFETCH steps before."""
    with _pool(settings.workers) as pool:
        waiting: deque[Future[list[Batch]]] = deque()
        step = progress.step
        while True:
            while len(waiting) <= PREFETCH:
                ahead = step + len(waiting)
                waiting.append(pool.submit(_make_batches, settings, ahead, progress.weights()))
            yield waiting.popleft().result()
            step += 1


def _pool(workers: int) -> Executor:
    if workers == 0:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def rate_at(settings: Settings, progress: Progress) -> float:
    """Share of the full learning rate: warm-up, then half a cosine to nothing."""
    done = _share_done(settings, progress)
    warm = min(1.0, (progress.step + 1) / WARMUP_STEPS)
    return warm * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))


def _share_done(settings: Settings, progress: Progress) -> float:
    return max(progress.trained_s / (settings.max_minutes * 60), progress.step / settings.steps)


def train(settings: Settings) -> dict[str, float]:
    """Train, write the folder and return the last held-out shares by family."""
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(settings.seed)
    model = Qwen2_5_VLForConditionalGeneration(model_config(tokenizer))
    learner = Learner(model, settings.device, settings.half, settings.threads)
    progress = Progress(0, 0.0, dict.fromkeys(FAMILIES, 1.0))
    if settings.resume:
        progress = _load(settings.state, learner)
    held_out = held_out_batch(TreeWriter(tokenizer), HELD_OUT_SEED, settings.held_out)
    shares: dict[str, float] = {}
    saved_at, since, losses = time.monotonic(), time.monotonic(), deque[float](maxlen=50)
    for batches in steps(settings, progress):
        losses.append(learner.step(batches, rate_at(settings, progress)))
        now = time.monotonic()
        progress.step, progress.trained_s, since = (
            progress.step + 1,
            progress.trained_s + now - since,
            now,
        )
        finished = _share_done(settings, progress) >= 1
        if progress.step % settings.evaluate_every == 0 or finished:
            shares = learner.exact_shares(held_out)
            progress.note(shares)
            _report(progress, losses, shares)
        if now - saved_at > settings.save_every_s or finished:
            saved_at = now
            _save(settings.state, learner, progress)
            write_folder(settings.out, model, tokenizer)
        if finished:
            break
    return shares


def _report(progress: Progress, losses: deque[float], shares: dict[str, float]) -> None:
    loss = sum(losses) / len(losses)
    line = " ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"step {progress.step} {progress.trained_s / 60:.1f} min loss {loss:.4f} | {line}", flush=True)


def _save(path: Path, learner: Learner, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    state: dict[str, Any] = learner.state() | {
        "step": progress.step,
        "trained_s": progress.trained_s,
        "errors": progress.errors,
    }
    torch.save(state, fresh)
    fresh.replace(path)


def _load(path: Path, learner: Learner) -> Progress:
    state = torch.load(path, weights_only=True)
    learner.load_state(state)
    return Progress(state["step"], state["trained_s"], state["errors"])


def parse(words: list[str] | None = None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder to write")
    parser.add_argument("--state", type=Path, default=Path("demo-training.pt"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3700, help="the rate falls to nothing over so many")
    parser.add_argument("--max-minutes", type=float, default=85.0, help="or over this time, if it is sooner")
    parser.add_argument("--rows", type=int, default=2, help="rows of 256 tokens in a batch")
    parser.add_argument("--parts", type=int, default=4, help="batches in a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures (0: a thread)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--evaluate-every", type=int, default=50)
    parser.add_argument("--held-out", type=int, default=40, help="questions per family")
    parser.add_argument("--save-every-s", type=float, default=300.0)
    return Settings(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    print(json.dumps(train(parse())))
