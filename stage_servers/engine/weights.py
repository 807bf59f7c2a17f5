"""Weights mapped from safetensors files straight into a transformers model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core.families import ModelError

Tensors = dict[str, torch.Tensor]


def map_weights(files: Sequence[Path]) -> Tensors:
    """All tensors of the files, mapped: pages are read when touched and shared with other processes."""
    tensors: Tensors = {}
    for path in files:
        try:
            with safe_open(path, "pt", device="cpu") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise ModelError(f"{path}: is no safetensors file ({error})") from None
    return tensors


def rename(tensors: Mapping[str, torch.Tensor], renames: Sequence[tuple[str, str]]) -> Tensors:
    """Tensors under the module's names; `renames` are (pattern, replacement) applied in order."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - each rule sees the one before
        renamed[name] = tensor
    return renamed


def stored_dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The dtype of most stored values."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype])


def assign(model: Any, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Puts the tensors into a model on the meta device; raises ModelError if one is missing or misshapen."""
    expected = model.state_dict()
    for name, wanted in expected.items():
        if name in tensors and tensors[name].shape != wanted.shape:
            found, right = tuple(tensors[name].shape), tuple(wanted.shape)
            raise ModelError(f"{folder}: the weight {name} has shape {found}, the config wants {right}")
    missing, _ = model.load_state_dict(dict(tensors), strict=False, assign=True)
    model.tie_weights()
    missing = [name for name in missing if _find(model, name).is_meta]
    if missing:
        raise ModelError(f"{folder}: lacks the weight {missing[0]} (and {len(missing) - 1} more)")
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def restore_buffers(model: Any) -> None:
    """Computes the buffers that no file holds (rotary frequencies), which the meta device left empty."""
    for name, module in list(model.named_modules()):
        own = dict(module.named_buffers(recurse=False))
        if any(buffer.is_meta for buffer in own.values()):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, type(module)(module.config))


def _find(model: Any, name: str) -> torch.Tensor:
    module, _, attribute = name.rpartition(".")
    found: torch.Tensor = getattr(model.get_submodule(module), attribute)
    return found


class MappedFiles:
    """Keeps what the mapped tensors rest on; closing gives shared copies up."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def hold(self, resource: Any) -> None:
        self._stack.callback(resource.close)

    def close(self) -> None:
        self._stack.close()
