"""Model families as a torch-free process sees them; `load_family` is the way in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.families import qwen_vl
from core.families.family import Family
from core.families.folder import ModelError, check_folder, check_is_folder, read_json
from core.families.media import MediaLayout, PatchLayout

__all__ = [
    "ARCHITECTURES",
    "Family",
    "MediaLayout",
    "ModelError",
    "PatchLayout",
    "check_model",
    "load_family",
]

_LOADERS: dict[str, Callable[[Path], Family]] = dict.fromkeys(qwen_vl.ARCHITECTURES, qwen_vl.load)
ARCHITECTURES = tuple(_LOADERS)  # that are served


def load_family(path: Path) -> Family:
    """The family of the model folder.

    Raises ModelError (a ValueError) naming a missing file or an unknown architecture.
    """
    return _LOADERS[check_model(path)](path)


def check_model(path: Path) -> str:
    """The architecture of a folder that can be served, as far as configs and names of files tell.

    Raises ModelError as `load_family` does.
    """
    check_is_folder(path)
    config = read_json(path, "config.json")
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    if not isinstance(architecture, str) or architecture not in _LOADERS:
        served = ", ".join(ARCHITECTURES)
        raise ModelError(f"{path / 'config.json'}: unknown architecture {architecture} (served: {served})")
    if config.get("quantization_config"):
        raise ModelError(f"{path / 'config.json'}: quantization_config: quantised weights are not served")
    check_folder(path)
    return architecture
