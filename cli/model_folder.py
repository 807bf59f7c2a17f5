"""Which model is served: the one named, else the bundled one."""

from __future__ import annotations

import sys
from pathlib import Path

DEMO_NAME = "elasticmm-demo"
_RELATIVE = Path("models") / "demo" / "checkpoint"


def model_folder(wanted: Path | None) -> Path:
    """An absolute path. Raises ValueError where no model is named and none is bundled."""
    return wanted.resolve() if wanted is not None else _demo_model()


def served_name(wanted: Path | None, name: str) -> str:
    """As clients see the model; "" leaves it the folder's name."""
    return name or (DEMO_NAME if wanted is None else "")


def _demo_model() -> Path:
    """Of the source tree, else of the installed package."""
    source = Path(__file__).resolve().parent.parent / _RELATIVE
    installed = Path(sys.prefix) / "share" / "elasticmm" / _RELATIVE
    for path in (source, installed):
        if (path / "config.json").is_file():
            return path
    raise ValueError(
        f"model: name a folder with --model (the demo model is in neither {source} nor {installed})"
    )
