"""Engine steps of batches in which none, half or all of the answers keep to a format.

    OMP_WAIT_POLICY=passive python -m benchmarks.formatted_steps --model DIR [--sequences 8] [--json FILE]

Every answer that ends is replaced; steps with prompts in them are left out. "Late" are rows of a step whose
masks were not there in time: they get no token and run again. Rates are tokens a second of the plain and of
the formatted answers. Wants bfloat16 weights (make_checkpoint.py --preset 120m).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.load.report import describe_machine
from benchmarks.masks import FORMS
from cli.load.outcomes import quantiles
from core.output_format import OutputFormat
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.engine import Engine
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, Key, StepOutput

PROMPT_TOKENS = 64
MAX_TOKENS = 400
BLOCK_TOKENS = 16
_WARM_STEPS = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Of `sequences` answers the first `formatted` keep to `form`."""

    name: str
    sequences: int
    formatted: int = 0
    form: OutputFormat | None = None


def cases(sequences: int) -> list[Case]:
    plain = [Case("no format", sequences)]
    half = [Case(f"half: {name}", sequences, sequences // 2, form) for name, form in FORMS.items()]
    return plain + half + [Case(f"all: {name}", sequences, sequences, form) for name, form in FORMS.items()]


class Load:
    """One engine with so many answers under way at all times."""

    def __init__(self, model: Model, case: Case) -> None:
        blocks = case.sequences * (PROMPT_TOKENS + MAX_TOKENS) // BLOCK_TOKENS + case.sequences
        shape = (model.kv_planes, blocks, BLOCK_TOKENS, model.kv_token_elements)
        pool = torch.zeros(shape, dtype=model.dtype, device=model.device)
        config = EngineConfig(512, case.sequences, BLOCK_TOKENS)
        self._engine = Engine(model, pool, BlockAllocator(blocks), config)
        self._eos = model.description.eos_token_ids
        self._case = case
        self._num_begun = 0
        self._places: dict[Key, int] = {}
        if case.form is not None:
            self._engine.grammars.matcher(case.form)  # is compiled before
        for place in range(case.sequences):
            self._begin(place)

    def step(self) -> StepOutput:
        output = self._engine.step()
        ended = [token.key for token in output.tokens if token.finish is not None]
        for key in [*ended, *(failure.key for failure in output.failed)]:
            self._begin(self._places.pop(key))
        return output

    @property
    def formatted(self) -> frozenset[Key]:
        return frozenset(key for key, place in self._places.items() if place < self._case.formatted)

    def close(self) -> None:
        for key in list(self._places):
            self._engine.abort(key)
        self._engine.close()

    def _begin(self, place: int) -> None:
        """Ends are made unlikely: most answers go on up to MAX_TOKENS."""
        number = self._num_begun = self._num_begun + 1
        spec = SequenceSpec(
            f"r{number}",
            0,
            tuple((7 * token + number) % 250 for token in range(PROMPT_TOKENS)),
            SamplingParams(
                MAX_TOKENS, temperature=1.0, seed=number, logit_bias=tuple((eos, -100.0) for eos in self._eos)
            ),
            stop_token_ids=self._eos,
            format=self._case.form if place < self._case.formatted else None,
        )
        self._places[spec.key] = place
        self._engine.add_prefill(spec, hand_over=False)


def measure(model: Model, case: Case, num_steps: int) -> dict[str, Any]:
    load = Load(model, case)
    for _ in range(_WARM_STEPS):
        load.step()
    times_ms, all_ms = list[float](), 0.0
    counts: Counter[str] = Counter()
    while len(times_ms) < num_steps:
        formatted, started_s = load.formatted, time.perf_counter()
        output = load.step()
        if output.prefilled:
            continue
        took_ms = (time.perf_counter() - started_s) * 1e3
        all_ms += took_ms
        if output.num_tokens:  # else all wait for their masks
            times_ms.append(took_ms)
        for token in output.tokens:
            counts["formatted" if token.key in formatted else "plain"] += 1
        counts["late"] += len(output.late)
    load.close()
    seconds = all_ms / 1e3
    return {
        "step_ms": quantiles(times_ms) | {"most": max(times_ms)},
        "plain_per_s": counts["plain"] / seconds,
        "formatted_per_s": counts["formatted"] / seconds,
        "late_share": counts["late"] / max(1, counts["late"] + counts["formatted"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model, device=options.device)
    gc.collect()
    gc.freeze()
    found = {}
    print(f"{'':28} step p50, p99, most ms    plain/s  formatted/s   late")
    with torch.inference_mode():
        for case in cases(options.sequences):
            each = found[case.name] = measure(model, case, options.steps)
            step = each["step_ms"]
            print(
                f"{case.name:28} {step['p50']:7.1f} {step['p99']:7.1f} {step['most']:7.1f} "
                f"{each['plain_per_s']:10.0f} {each['formatted_per_s']:12.0f} {each['late_share']:6.1%}",
                flush=True,
            )
    if options.json:
        report = {"machine": describe_machine(), "options": {k: str(v) for k, v in vars(options).items()}}
        options.json.write_text(json.dumps(report | {"cases": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
