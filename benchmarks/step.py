"""Engine steps beside what bounds them: weight reads, matrix products, transformers' generate.

    OMP_WAIT_POLICY=passive python -m benchmarks.step --model DIR [--device D] [--json FILE]

All figures are taken alternately in one run, so that whatever else the machine does touches all
alike; ratios are of medians. The weights are read in two ways, the faster counts. The wait policy
is the one that stage servers want: where processes share cores, threads that spin at torch's
barriers keep each other from working. Wants bfloat16 weights (make_checkpoint.py --preset 120m).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.engine import Engine
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig

CONTEXT = 512
BATCH = 8
BLOCK_TOKENS = 16
STEPS_PER_ROUND = 4


@dataclass(frozen=True)
class Figure:
    name: str
    median_ms: float
    best_ms: float


class Bench:
    """One model, its engines and reference, and how each figure is taken once."""

    def __init__(self, model: Model, reference: Any, threads: int) -> None:
        self.model = model
        self.reference = reference
        # Of the reference, as the model's own may be packed otherwise.
        layers = reference.get_decoder().modules()
        self.linears = [module.weight for module in layers if isinstance(module, torch.nn.Linear)]
        self.weights = [*self.linears, reference.lm_head.weight]
        half = [part for weight in self.weights for part in weight.chunk(2 * threads)]
        self._words = [part.view(torch.int32).numpy() for part in half] if self._is_on_cpu else []
        self._threads = threads
        self._readers = ThreadPoolExecutor(threads)
        self.alone, self.together = self._decoding(1), self._decoding(BATCH)
        self.filling = self._engine()

    @property
    def _is_on_cpu(self) -> bool:
        return self.model.device.type == "cpu"

    @property
    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights)

    @property
    def prefill_flop(self) -> int:
        return 2 * CONTEXT * sum(weight.numel() for weight in self.linears)

    def read_weights(self) -> list[float]:
        """Every byte of the weights once, each thread its share; no thread waits for another in between."""
        shares = [self._words[place :: self._threads] for place in range(self._threads)]
        return timed(lambda: list(self._readers.map(_read, shares)))

    def read_weights_by_torch(self) -> list[float]:
        return timed(lambda: [weight.view(torch.int32).max() for weight in self.weights])

    def linears_at(self, rows: int, weights: list[torch.Tensor]) -> list[float]:
        widths = {weight.shape[1] for weight in weights}
        dtype, device = self.model.dtype, self.model.device
        inputs = {width: torch.randn(rows, width, dtype=dtype, device=device) for width in widths}
        return timed(lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights])

    def decode(self, engine: Engine) -> list[float]:
        return [engine.step().duration_s for _ in range(STEPS_PER_ROUND)]

    def prefill(self) -> list[float]:
        self.filling.add_prefill(_spec(0, 1), hand_over=False)
        return [self.filling.step().duration_s]

    def generate(self) -> list[float]:
        """Seconds between the tokens of transformers' batched greedy generate."""
        moments: list[float] = []

        def note(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            _synchronize()
            moments.append(time.perf_counter())
            return scores

        prompts = torch.tensor([_spec(place, 1).prompt for place in range(BATCH)], device=self.model.device)
        count = STEPS_PER_ROUND + 1
        self.reference.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=[note],
        )
        return [after - before for before, after in pairwise(moments)]

    def figures(self) -> dict[str, Callable[[], list[float]]]:
        host = {"read of all weights": self.read_weights} if self._is_on_cpu else {}
        return host | {
            "read of all weights by torch": self.read_weights_by_torch,
            "linears at one row": lambda: self.linears_at(1, self.weights),
            "decode step, batch 1": lambda: self.decode(self.alone),
            f"decode step, batch {BATCH}": lambda: self.decode(self.together),
            f"generate step, batch {BATCH}": self.generate,
            f"linears at {CONTEXT} rows": lambda: self.linears_at(CONTEXT, self.linears),
            f"prefill of {CONTEXT} tokens": self.prefill,
        }

    def _engine(self) -> Engine:
        model, num_blocks = self.model, 2 * BATCH * CONTEXT // BLOCK_TOKENS
        shape = (model.kv_planes, num_blocks, BLOCK_TOKENS, model.kv_token_elements)
        pool = torch.zeros(shape, dtype=model.dtype, device=model.device)
        return Engine(model, pool, BlockAllocator(num_blocks), EngineConfig(CONTEXT, BATCH, BLOCK_TOKENS))

    def _decoding(self, batch: int) -> Engine:
        engine = self._engine()
        for place in range(batch):
            engine.add_prefill(_spec(place, CONTEXT // 2), hand_over=False)
        while engine.load.num_decoding < batch:
            engine.step()
        return engine


def _read(share: list[np.ndarray[Any, np.dtype[np.int32]]]) -> None:
    for words in share:
        words.max()


def _spec(place: int, max_tokens: int) -> SequenceSpec:
    prompt = tuple((7 * token + place) % 250 for token in range(CONTEXT))
    return SequenceSpec(f"r{place}", 0, prompt, SamplingParams(max_tokens))


def timed(work: Callable[[], object]) -> list[float]:
    _synchronize()
    started_s = time.perf_counter()
    work()
    _synchronize()
    return [time.perf_counter() - started_s]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(bench: Bench, rounds: int) -> dict[str, Figure]:
    figures = bench.figures()
    samples: dict[str, list[float]] = {name: [] for name in figures}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, take in figures.items():
                found = take()
                if number:  # the first round warms up
                    samples[name] += found
    return {
        name: Figure(name, 1e3 * statistics.median(found), 1e3 * min(found))
        for name, found in samples.items()
    }


def ratios(bench: Bench, figures: dict[str, Figure]) -> dict[str, float]:
    """What the targets are about; medians over medians."""
    at = {name: figure.median_ms for name, figure in figures.items()}
    reads = ("read of all weights", "read of all weights by torch", "linears at one row")
    read = min(at[name] for name in reads if name in at)
    gemm, prefill = at[f"linears at {CONTEXT} rows"], at[f"prefill of {CONTEXT} tokens"]
    return {
        "decode step, batch 1 / weight read": at["decode step, batch 1"] / read,
        f"decode step, batch {BATCH} / weight read": at[f"decode step, batch {BATCH}"] / read,
        f"decode step / generate step, batch {BATCH}": at[f"decode step, batch {BATCH}"]
        / at[f"generate step, batch {BATCH}"],
        "prefill rate / GEMM rate": gemm / prefill,
        "read, GB/s": bench.weight_bytes / read / 1e6,
        "GEMM, GFLOP/s": bench.prefill_flop / gemm / 1e6,
    }


def load_reference(path: Path, model: Model) -> Any:
    from transformers import AutoModelForImageTextToText

    reference: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=model.dtype)
    return reference.eval().to(model.device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-fast-path", action="store_true", help="decodes on transformers' code")
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device=arguments.device, fast_path=not arguments.no_fast_path)
    bench = Bench(model, load_reference(arguments.model, model), arguments.threads)
    gc.collect()
    gc.freeze()
    figures = measure(bench, arguments.rounds)
    found = ratios(bench, figures)
    for figure in figures.values():
        print(f"{figure.name:36} median {figure.median_ms:9.2f} ms   best {figure.best_ms:9.2f} ms")
    for name, value in found.items():
        print(f"{name:48} {value:8.2f}")
    print(f"threads {arguments.threads}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    if arguments.json is not None:
        record = {
            "model": arguments.model.name,
            "dtype": str(model.dtype),
            "device": arguments.device,
            "attention": model.attention_backend,
            "threads": arguments.threads,
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "fast_path": model.fast_path is not None,
            "weight_bytes": bench.weight_bytes,
            "figures": [asdict(figure) for figure in figures.values()],
            "ratios": found,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
