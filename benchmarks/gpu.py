"""Everything that is measured on a GPU, in one command: transfers, steps, served load on the 2b checkpoint.

    python -m benchmarks.gpu [--preset 2b] [--json-dir benchmarks/results]

Writes one JSON file per part, named after the device.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from stage_servers.devices import find_gpus

SERVE_SETUPS = ("coupled", "e1p1d1")
SERVE_KV_BLOCKS = 4096  # both set-ups run at once, all their instances on one card
SERVE_LIMITS = ["--requests", "48", "--rounds", "2", "--concurrency", "16", "--input-tokens", "512"]


def parts(model: Path, out: Path, device: str) -> list[list[str]]:
    """The commands, one per part."""
    common = ["--model", str(model), "--json"]
    serve = [sys.executable, "-m", "benchmarks.serve", "--device", "cuda:0", *SERVE_LIMITS]
    serve += [word for setup in SERVE_SETUPS for word in ("--setup", f"{setup} kv_blocks={SERVE_KV_BLOCKS}")]
    transfer = [sys.executable, "-m", "benchmarks.cuda_transfer", "--device", "cuda:0"]
    return [
        [*transfer, "--json", str(out / f"cuda-transfer-{device}.json")],
        [
            sys.executable,
            "-m",
            "benchmarks.step",
            "--device",
            "cuda:0",
            *common,
            str(out / f"step-{device}.json"),
        ],
        [*serve, *common, str(out / f"serve-text-{device}.json")],
        [*serve, "--image-share", "0.5", *common, str(out / f"serve-mixed-{device}.json")],
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="2b")
    parser.add_argument("--json-dir", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args()
    gpus = find_gpus()
    if not gpus:
        print("no NVIDIA GPU here: nothing to measure")
        return 0
    options.json_dir.mkdir(parents=True, exist_ok=True)
    device = gpus[0].name.lower().replace(" ", "-")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / options.preset
        make = [sys.executable, "-m", "benchmarks.make_checkpoint", "--preset", options.preset]
        subprocess.run([*make, "--out", str(model)], check=True)
        return max(
            subprocess.run(part, check=False).returncode for part in parts(model, options.json_dir, device)
        )


if __name__ == "__main__":
    sys.exit(main())
