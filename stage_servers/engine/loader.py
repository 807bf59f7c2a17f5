"""From a model folder to a Model; weights stay in the page cache, shared by all processes of the host."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch

from core.families import ModelError, load_family
from core.families.folder import weight_files
from stage_servers.engine.attention import native, registry
from stage_servers.engine.attention.backend import ENCODER_INTERFACE_NAME, INTERFACE_NAME, register
from stage_servers.engine.bulkpath import BulkPath
from stage_servers.engine.converted import share_converted
from stage_servers.engine.device import use_device
from stage_servers.engine.families import adapter_for
from stage_servers.engine.families.adapter import FamilyAdapter
from stage_servers.engine.fastpath import FastPath
from stage_servers.engine.fused import fuse, fuse_patches
from stage_servers.engine.gpu import path as gpu_path
from stage_servers.engine.gpu.encoder import fuse_encoder
from stage_servers.engine.model import Model
from stage_servers.engine.native.build import NativeError, load_library
from stage_servers.engine.weights import (
    MappedFiles,
    Tensors,
    assign,
    map_weights,
    rename,
    restore_buffers,
    stored_dtype,
)

__all__ = ["ModelError", "load_model"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_log = logging.getLogger(__name__)


def load_model(
    path: Path, *, dtype: str = "auto", device: str = "cpu", attention: str = "auto", fast_path: bool = True
) -> Model:
    """The model of a folder, ready to run.

    dtype "auto" is that of the files; fast_path False keeps all steps on transformers'
    code. Raises ModelError naming a missing file or weight, an unknown architecture,
    or a dtype, device or attention backend that is not to be had.
    """
    description = load_family(path)
    chosen = _device(device)
    adapter = adapter_for(description)
    with torch.device("meta"):
        model = adapter.build(path).eval()
    restore_buffers(model)
    tensors = rename(map_weights(weight_files(path)), adapter.renames)
    wanted = _dtype(dtype, tensors)
    files = MappedFiles()
    assign(model, _converted(tensors, wanted, chosen, description.fingerprint, files), path)
    model.to(chosen)
    family = adapter(model)
    register()
    family.text_config._attn_implementation = INTERFACE_NAME
    backend = registry.choose(attention, chosen, wanted, family.attention_shape)
    if backend == "native" and _can_encode(family, chosen, wanted):
        family.vision_model.config._attn_implementation = ENCODER_INTERFACE_NAME
    if chosen.type == "cuda":
        fuse_patches(model)
        fuse_encoder(family.vision_model, _kernels())
    fast, bulk = _native_paths(family, chosen) if fast_path else (None, None)
    gpu = _gpu_path(family, backend) if fast_path else None
    return Model(
        path=path,
        description=description,
        family=family,
        processor=adapter.image_processor(path),
        device=chosen,
        dtype=wanted,
        attention_backend=backend,
        fast_path=fast,
        bulk_path=bulk,
        gpu_path=gpu,
        files=files,
    )


def _can_encode(family: FamilyAdapter, device: torch.device, dtype: torch.dtype) -> bool:
    shape = family.encoder_shape
    return shape is not None and native.refusal(device, dtype, shape) is None


def _native_paths(family: FamilyAdapter, device: torch.device) -> tuple[FastPath | None, BulkPath | None]:
    if device.type != "cpu":
        return None, None
    try:
        library = load_library()
        fuse(family.model, library)
        return FastPath(family, library), BulkPath(family, library)
    except NativeError as error:
        _log.warning("steps take transformers' slower code: %s", error)
        return None, None


def _kernels() -> Any | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from stage_servers.engine.gpu import kernels

    return kernels


def _gpu_path(family: FamilyAdapter, backend: str) -> gpu_path.GpuPath | None:
    if backend != "triton":
        return None
    reason = gpu_path.refusal(family)
    if reason is not None:
        _log.warning("steps take transformers' slower code: %s", reason)
        return None
    return gpu_path.GpuPath(family)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device: {name!r} is no device") from None
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device: {name!r} is not supported (cpu, cuda:N)")
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            why = " (this torch is built without CUDA)" if torch.version.cuda is None else ""
            raise ModelError(f"device: {name} is not here{why}")
        device = torch.device("cuda", device.index or 0)
        use_device(device)
        # Convolutions round float32 to TF32 unless told otherwise; matrix products do not.
        torch.backends.cudnn.allow_tf32 = False
    return device


def _dtype(name: str, tensors: Tensors) -> torch.dtype:
    if name == "auto":
        stored = stored_dtype(tensors)
        if stored not in _DTYPES.values():
            raise ModelError(f"dtype: weights stored as {stored} are not supported")
        return stored
    if name not in _DTYPES:
        raise ModelError(f"dtype: {name!r} is not supported (auto, {', '.join(_DTYPES)})")
    return _DTYPES[name]


def _converted(
    tensors: Tensors, dtype: torch.dtype, device: torch.device, fingerprint: str, files: MappedFiles
) -> Tensors:
    """Tensors in `dtype`: those of the files, or on the CPU a copy that the host's processes share."""
    if all(tensor.dtype == dtype for tensor in tensors.values()):
        return tensors
    if device.type != "cpu":
        return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    try:
        shared = share_converted(f"{fingerprint}-{str(dtype).removeprefix('torch.')}", tensors, dtype)
    except OSError as error:
        _log.warning("weights are converted for this process alone: shared memory has no room (%s)", error)
        return {name: tensor.to(dtype) for name, tensor in tensors.items()}
    files.hold(shared)
    return map_weights([shared.path])
