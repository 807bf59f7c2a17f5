"""Makes the Python stubs under protos/generated from the schemas; --check fails if they are stale."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
GENERATED = ROOT / "generated"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
BIN = Path(sys.executable).parent


def generate(out: Path) -> None:
    """Writes message, service and type stubs of every schema into `out`."""
    schemas = sorted(str(path) for path in (ROOT / "elasticmm").rglob("*.proto"))
    plugins = [f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    outputs = [
        f"--{kind}_out={'quiet:' if 'mypy' in kind else ''}{out}"
        for kind in ("python", "grpc_python", "mypy", "mypy_grpc")
    ]
    if protoc.main(["protoc", f"-I{ROOT}", f"-I{WELL_KNOWN}", *plugins, *outputs, *schemas]) != 0:
        raise SystemExit("protoc failed")


def stale_files() -> list[str]:
    """Stubs that differ from what the schemas give now, or lack one."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        made = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*.py*")}
        kept = {
            path.relative_to(GENERATED)
            for path in GENERATED.rglob("*_pb2*.py*")
            if "__pycache__" not in path.parts
        }
        differing = {
            path for path in made & kept if not filecmp.cmp(fresh / path, GENERATED / path, shallow=False)
        }
        return sorted(str(path) for path in (made ^ kept) | differing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a stub is stale")
    if not parser.parse_args().check:
        generate(GENERATED)
        return 0
    stale = stale_files()
    for path in stale:
        print(f"stale: {path} (run make protos)", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
