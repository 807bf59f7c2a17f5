"""A model folder in the Hugging Face layout: what must be in it, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
SAMPLE_BYTES = 256
MAX_HEADER_BYTES = 100 << 20


class ModelError(ValueError):
    """A model folder that cannot be served; the message names what is missing or unknown."""


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Raises ModelError if the file is not there or holds no JSON object."""
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{folder}: lacks the file {name}")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is no JSON object")
    return content


def read_processor(folder: Path) -> dict[str, Any]:
    """Settings of the image processor, from either file that may hold them."""
    if not (folder / "preprocessor_config.json").is_file() and (folder / "processor_config.json").is_file():
        nested = read_json(folder, "processor_config.json").get("image_processor")
        if isinstance(nested, dict):
            return nested
    return read_json(folder, "preprocessor_config.json")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files in order of name; raises ModelError naming one that is missing."""
    if (folder / SINGLE_WEIGHTS).is_file():
        return (folder / SINGLE_WEIGHTS,)
    if not (folder / WEIGHTS_INDEX).is_file():
        raise ModelError(f"{folder}: lacks the file {SINGLE_WEIGHTS} (or {WEIGHTS_INDEX} with its shards)")
    shards = sorted(set(read_json(folder, WEIGHTS_INDEX).get("weight_map", {}).values()))
    for shard in shards:
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise ModelError(f"{folder}: lacks the file {shard}")
    if not shards:
        raise ModelError(f"{folder / WEIGHTS_INDEX}: names no weights")
    return tuple(folder / shard for shard in shards)


def check_is_folder(folder: Path) -> None:
    """Raises ModelError, with what to do about a name of the model hub."""
    if folder.is_dir():
        return
    if folder.exists():
        raise ModelError(f"{folder}: is no folder")
    raise ModelError(
        f"{folder}: there is no such folder (of a model on the hub: hf download ORG/NAME --local-dir DIR)"
    )


def check_folder(folder: Path) -> None:
    """Raises ModelError naming the first file that serving needs and that is not there."""
    read_json(folder, "config.json")
    read_json(folder, "tokenizer.json")
    read_processor(folder)
    weight_files(folder)
    if not (folder / "chat_template.jinja").is_file():
        named = folder / "tokenizer_config.json"
        if not named.is_file() or "chat_template" not in read_json(folder, named.name):
            raise ModelError(f"{folder}: lacks the file chat_template.jinja")


def fingerprint(folder: Path) -> str:
    """SHA-256 in hex over the configs, the weights' headers and samples of every tensor.

    Samples rather than all bytes: milliseconds instead of the time of reading
    the weights, and still different for weights that were trained further.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    digest.update(json.dumps(read_processor(folder), sort_keys=True).encode())
    for path in weight_files(folder):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        _add_weights(digest, path)
    return digest.hexdigest()


def _add_weights(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        header, start = _read_header(file, path)
        digest.update(header)
        tensors: dict[str, Any] = json.loads(header)
        for name in sorted(tensors.keys() - {"__metadata__"}):
            first, end = tensors[name]["data_offsets"]
            for offset in (first, (first + end) // 2):
                file.seek(start + offset)
                digest.update(file.read(min(SAMPLE_BYTES, end - offset)))


def _read_header(file: BinaryIO, path: Path) -> tuple[bytes, int]:
    """The JSON header of a safetensors file, and where its tensors start."""
    prefix = file.read(8)
    size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    header = file.read(size) if 2 <= size <= MAX_HEADER_BYTES else b""
    if len(header) != size or not header.startswith(b"{"):
        raise ModelError(f"{path}: is no safetensors file")
    return header, 8 + size
