"""What the installed torch was built for, without importing it: that takes seconds."""

from __future__ import annotations

import ast
import importlib.util
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
        said = _constants((folder / "version.py").read_text())
    except (OSError, ValueError, SyntaxError):
        return None
    return None if said.get("cuda", "unknown") is not None else str(said.get("__version__", ""))


def _constants(source: str) -> dict[str, object]:
    """Names that a module gives a plain value, type or no type beside it."""
    found: dict[str, object] = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Constant):
            found |= {each.id: value.value for each in targets if isinstance(each, ast.Name)}
    return found
