"""Served throughput beside what the engine's own prefill and decode times allow.

    python -m benchmarks.bound --model DIR [--rounds 3] [--json FILE]

A coupled cluster answers 8 requests at a time (512 tokens in, 64 out). Were the device never idle, each
request would cost one prefill and 63 eighths of a decode step at batch 8: that is the bound. Steps are
measured on an engine in this process with as many threads, in turn with the load, in one run; medians are
compared.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
from pathlib import Path
from typing import Any

from cli.compute_environment import compute_environment

os.environ.update(compute_environment())

import torch

from benchmarks.load.driver import DriveSpec, drive
from benchmarks.load.setups import parse_setup, running
from benchmarks.step import BATCH, CONTEXT, Bench
from cli.devices import choose_cores, choose_devices
from cli.launch.plan import LaunchPlan
from cli.load.outcomes import Targets, summarize
from cli.load.texts import TextMaker
from cli.load.workload import WorkloadSpec, plan_requests
from stage_servers.engine.loader import load_model

OUTPUT = 64
REQUESTS = 24


def serve(address: str, texts: TextMaker, seed: int, num_requests: int = REQUESTS) -> dict[str, Any]:
    """Figures of one closed-loop run."""
    workload = WorkloadSpec(num_requests, input_tokens=CONTEXT, output_tokens=OUTPUT, concurrency=BATCH)
    outcomes = drive(
        DriveSpec(address, BATCH, 1, 600.0), plan_requests(workload, texts, seed), lambda _: None
    )
    return summarize(outcomes, Targets(None, None))


def bound_tokens_per_s(prefill_s: float, decode_s: float) -> float:
    """Output tokens per second of a device that is never idle."""
    return OUTPUT / (prefill_s + (OUTPUT - 1) * decode_s / BATCH)


def measure(model: Path, rounds: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    bench = Bench(load_model(model), None, threads)
    gc.collect()
    gc.freeze()
    texts = TextMaker(model)
    plan = LaunchPlan(
        cluster="bound",
        model=model,
        devices=choose_devices("cpu"),
        cores=choose_cores(None),
        threads=threads,
        log_level="WARNING",
    )
    prefills: list[float] = []
    decodes: list[float] = []
    served: list[dict[str, Any]] = []
    with running(parse_setup("coupled"), plan) as endpoint:
        serve(endpoint.address, texts, -1, BATCH)
        bench.prefill()
        for seed in range(rounds):
            prefills += [*bench.prefill(), *bench.prefill(), *bench.prefill()]
            decodes += [step for _ in range(4) for step in bench.decode(bench.together)]
            served.append(serve(endpoint.address, texts, seed))
    rate = statistics.median(each["output_tokens_per_s"] for each in served)
    prefill_s, decode_s = statistics.median(prefills), statistics.median(decodes)
    bound = bound_tokens_per_s(prefill_s, decode_s)
    return {
        "model": model.name,
        "threads": threads,
        "prefill_ms": 1e3 * prefill_s,
        "decode_step_ms": 1e3 * decode_s,
        "bound_tokens_per_s": bound,
        "served_tokens_per_s": rate,
        "share_of_bound": rate / bound,
        "rounds": served,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.model, options.rounds, options.threads)
    print(f"prefill of {CONTEXT} tokens     {result['prefill_ms']:8.1f} ms")
    print(f"decode step, batch {BATCH}       {result['decode_step_ms']:8.1f} ms")
    print(f"bound                     {result['bound_tokens_per_s']:8.1f} output tokens/s")
    print(f"served                    {result['served_tokens_per_s']:8.1f} output tokens/s")
    print(f"share of the bound        {result['share_of_bound']:8.2f} (to reach: 0.70)")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
