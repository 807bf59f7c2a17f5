"""Everything that is measured on a GPU, in one command: transfers, steps, costs, served load.

    python -m benchmarks.gpu [--part NAME ...] [--json-dir benchmarks/results]

Random weights in the sizes of a 2b and a 7b model. Writes one JSON file per part, named after the device; a
part that fails or takes too long leaves the others alone.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from stage_servers.devices import find_gpus

DEVICE = "cuda:0"
SERVE_SETUPS = ("coupled", "e1p1d1")
SERVE_KV_BLOCKS = 4096  # both set-ups run at once, all their instances on one card
SERVE_LIMITS = ("--requests", "48", "--rounds", "2", "--concurrency", "16", "--input-tokens", "512")
MOST_S = 150.0  # for one part
_END_S = 30.0  # that one may take to end when it is told to


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark: a module and its arguments, behind which come those of all parts."""

    name: str  # also of its file, in front of the device's
    preset: str | None  # of the checkpoint that it runs
    module: str
    arguments: tuple[str, ...] = ()
    out: str = "--json"  # the argument that takes the file

    def command(self, models: Path, out: Path, device: str) -> list[str]:
        model = () if self.preset is None else ("--model", str(models / self.preset))
        file = str(out / f"{self.name}-{device}.json")
        words = ["-m", self.module, *self.arguments, "--device", DEVICE, *model, self.out, file]
        return [sys.executable, *words]


def _serve(name: str, *arguments: str) -> Part:
    setups = [word for setup in SERVE_SETUPS for word in ("--setup", f"{setup} kv_blocks={SERVE_KV_BLOCKS}")]
    return Part(name, "2b", "benchmarks.serve", (*SERVE_LIMITS, *setups, *arguments))


# What says most comes first, should time run out.
PARTS = (
    Part("profile-7b", "7b", "cli.main", ("profile", "--model-name", "7b"), out="--out"),
    Part("cuda-transfer", None, "benchmarks.cuda_transfer"),
    Part("cuda-transfer-parts", None, "benchmarks.cuda_transfer", ("--pushes", "4")),  # as steps in graphs
    _serve("serve-mixed", "--image-share", "0.5"),
    _serve("serve-text"),
    Part("step-7b", "7b", "benchmarks.step"),
    Part("step-2b", "2b", "benchmarks.step"),
)


def make_checkpoint(preset: str, out: Path) -> None:
    make = [sys.executable, "-m", "benchmarks.make_checkpoint", "--preset", preset, "--device", DEVICE]
    subprocess.run([*make, "--out", str(out)], check=True)


def run(part: Part, models: Path, out: Path, device: str) -> bool:
    """Whether it came to its end."""
    started_s = time.monotonic()
    if part.preset is not None and not (models / part.preset).exists():
        make_checkpoint(part.preset, models / part.preset)
    print(f"-- {part.name}", flush=True)
    code = _run_within(part.command(models, out, device), MOST_S)
    print(f"-- {part.name}: exit {code} after {time.monotonic() - started_s:.0f} s", flush=True)
    return code == 0


def _run_within(command: list[str], most_s: float) -> int:
    """Its exit code; one that takes longer is interrupted, so that it ends the clusters it has started."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait(most_s)
        except subprocess.TimeoutExpired:
            print(f"took longer than {most_s:g} s", flush=True)
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(_END_S) or 1
        except subprocess.TimeoutExpired:
            process.kill()
            return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--part", action="append", choices=names, help="instead of all; repeatable")
    parser.add_argument("--json-dir", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--models", type=Path, help="keep the checkpoints there, and use those that are")
    options = parser.parse_args()
    gpus = find_gpus()
    if not gpus:
        print("no NVIDIA GPU here: nothing to measure")
        return 0
    options.json_dir.mkdir(parents=True, exist_ok=True)
    device = gpus[0].name.lower().replace(" ", "-")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [part for part in PARTS if options.part is None or part.name in options.part]
        models = options.models or Path(folder)
        ended = [run(part, models, options.json_dir, device) for part in chosen]
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
