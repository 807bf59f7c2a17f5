"""What the installed torch was built for, without importing it: that takes seconds."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path


def build_without_cuda(folder: Path | None = None) -> str | None:
    """The version of a torch that can use no CUDA; None where it may, or where nobody can tell.

    `folder` is torch's package, None: the installed one.
    """
    if folder is None:
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent
    try:
        said = runpy.run_path(str(folder / "version.py"))
    except (OSError, SyntaxError):
        return None
    has_cuda = said.get("cuda", "unknown") is not None
    return None if has_cuda else str(said.get("__version__", "of an unknown version"))
