"""Model families as a torch-free process sees them; `load_family` is the way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.families import qwen_vl
from core.families.family import Family
from core.families.folder import ModelError, check_folder, read_json
from core.families.media import MediaLayout, PatchLayout

__all__ = ["Family", "MediaLayout", "ModelError", "PatchLayout", "load_family"]

_LOADERS: dict[str, Callable[[Path], Family]] = dict.fromkeys(qwen_vl.ARCHITECTURES, qwen_vl.load)


def load_family(path: Path) -> Family:
    """The family of the model folder.

    Raises ModelError (a ValueError) naming a missing file or an unknown architecture.
    """
    check_folder(path)
    names = read_json(path, "config.json").get("architectures") or [None]
    if names[0] not in _LOADERS:
        raise ModelError(
            f"{path / 'config.json'}: unknown architecture {names[0]} (known: {', '.join(_LOADERS)})"
        )
    return _LOADERS[names[0]](path)
