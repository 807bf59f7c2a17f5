"""Start-up times and memory: how soon a cluster is ready, and what four stage servers hold together.

    python -m benchmarks.footprint [--model DIR] [--repeats 3] [--json FILE]

Start-up is measured on the demo model; "import" is one fresh process that imports torch and the model's
class. Memory is the proportional set size (PSS) of all stage servers after each has served a request, on
--model (default: the demo model), one coupled instance against e1p1d2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from elasticmm_client import Client

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo" / "checkpoint"
CLI = [sys.executable, "-m", "cli.main"]
_IMPORT = "import json,sys,torch,transformers; getattr(transformers, sys.argv[1])"


def import_s(model: Path) -> float:
    """One process that imports torch and the checkpoint's model class."""
    architecture = json.loads((model / "config.json").read_text())["architectures"][0]
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORT, architecture], check=True)
    return time.perf_counter() - start_s


def coordinator_s(model: Path) -> float:
    """From start to ready of a coordinator with its media gateway."""
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text("footprint\n")
        command = [*CLI, "coordinator", "--model", str(model), "--port", "0", "--token-file", str(token)]
        start_s = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            elapsed_s = time.perf_counter() - start_s
            process.terminate()
    return elapsed_s


@contextmanager
def cluster(model: Path, topology: str) -> Iterator[tuple[dict[str, Any], float]]:
    """A running cluster as `up --json` describes it, and the seconds until it was ready."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["--state-dir", folder]
        command = [
            *CLI,
            "up",
            "--model",
            str(model),
            "--topology",
            topology,
            "--port",
            "0",
            "--detach",
            "--json",
        ]
        start_s = time.perf_counter()
        up = subprocess.run([*command, *where], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        elapsed_s = time.perf_counter() - start_s
        try:
            yield json.loads(up.stdout), elapsed_s
        finally:
            subprocess.run([*CLI, "down", *where], check=True, stdout=subprocess.DEVNULL)


def ready_s(model: Path, topology: str) -> float:
    with cluster(model, topology) as (_, elapsed_s):
        return elapsed_s


def stage_pss_bytes(model: Path, topology: str) -> int:
    """PSS of all stage servers and the process they are forked from, after work has touched the weights."""
    with cluster(model, topology) as (up, _):
        _work(up["address"])
        pids = [up["pids"]["stages"], *(instance["pid"] for instance in up["instances"])]
        return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


def _work(address: str) -> None:
    """Several requests, so that every instance of every stage has one."""
    picture = Image.effect_noise((224, 224), 64).convert("RGB")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]
    with Client(address) as client:
        streams = [
            client.generate([{"role": "user", "content": content}], max_tokens=4, ignore_eos=True)
            for _ in range(4)
        ]
        for stream in streams:
            stream.result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO, help="checkpoint whose memory is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    starts: dict[str, Callable[[], float]] = {
        "import": lambda: import_s(DEMO),
        "coordinator": lambda: coordinator_s(DEMO),
        "e1p1d1": lambda: ready_s(DEMO, "e1p1d1"),
    }
    samples: dict[str, list[float]] = {name: [] for name in starts}
    import_s(DEMO)  # fills the page cache
    for _ in range(options.repeats):
        for name, measure in starts.items():
            samples[name].append(measure())
    medians = {name: statistics.median(values) for name, values in samples.items()}
    bound_s = 1.3 * medians["import"] + 3
    one = stage_pss_bytes(options.model, "coupled")
    four = stage_pss_bytes(options.model, "e1p1d2")
    result = {
        "model": options.model.name,
        "start_s": medians,
        "e1p1d1_bound_s": bound_s,
        "pss_bytes": {"one": one, "four": four},
        "pss_ratio": four / one,
    }
    print(f"coordinator ready          {medians['coordinator']:6.2f} s   (to reach: 3 s)")
    print(f"import of torch and model  {medians['import']:6.2f} s")
    print(f"e1p1d1 ready               {medians['e1p1d1']:6.2f} s   (to reach: {bound_s:.2f} s)")
    print(f"one stage server           {one / 2**20:8.0f} MiB PSS, {options.model.name}")
    print(
        f"four stage servers         {four / 2**20:8.0f} MiB PSS, {four / one:.2f} times one (to reach: 1.30)"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
