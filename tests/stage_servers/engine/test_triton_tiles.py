"""What one program of the Triton kernel works on, and that it compiles for a card that is not here."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from stage_servers.engine.attention.triton_paged import tile

SHARED_BYTES = 227 << 10  # that a program may have on the H100
GROUPS = (1, 2, 3, 4, 7, 8, 16, 32)


@pytest.mark.parametrize("most_rows", [1, 16])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_tile_has_room_for_the_heads_of_its_rows(dtype: torch.dtype, group: int, most_rows: int) -> None:
    found = tile(dtype, group, most_rows)
    assert 1 <= found.rows <= most_rows
    assert found.rows * group <= found.queries
    assert found.queries >= 16  # Triton's least
    assert found.queries.bit_count() == found.keys.bit_count() == 1
    assert found.queries * found.keys <= (1024 if dtype == torch.float32 else 8192)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize(("most_rows", "num_splits"), [(1, 1), (1, 8), (16, 1)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(28, 4), (16, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_for_hopper(
    dtype: torch.dtype, heads: int, kv_heads: int, most_rows: int, num_splits: int
) -> None:
    from stage_servers.engine.attention.triton_kernel import paged_attention_kernel as kernel

    each = tile(dtype, heads // kv_heads, most_rows)
    constants = {
        "NUM_HEADS": heads,
        "NUM_KV_HEADS": kv_heads,
        "GROUP": heads // kv_heads,
        "HEAD_DIM": 128,
        "PADDED_DIM": 128,
        "ROWS": each.rows,
        "QUERIES": each.queries,
        "KEYS": each.keys,
        "BLOCK_TOKENS": 16,
        "SPLITS": num_splits,
    }
    kinds = {name: pointer(dtype) for name in ("query", "keys", "values", "out")}
    kinds |= {"parts": "*fp32", "part_sums": "*fp32", "scale": "fp32", "table_width": "i32"}
    compiled = compile_kernel(kernel, constants, kinds, each.warps, each.stages)
    assert compiled.metadata.shared <= SHARED_BYTES


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_layers_compile_for_hopper(dtype: torch.dtype) -> None:
    from stage_servers.engine.attention import triton_kernel
    from stage_servers.engine.gpu import kernels

    heads = {"NUM_HEADS": 28, "NUM_KV_HEADS": 4}
    each = dict.fromkeys(
        ("x", "residual", "weight", "projected", "q_norm", "k_norm", "query"), pointer(dtype)
    )
    each |= dict.fromkeys(("keys", "values", "both", "out"), pointer(dtype))
    each |= dict.fromkeys(("cos", "sin", "parts", "part_sums"), "*fp32")
    each |= {"slots": "*i64", "width": "i32", "eps": "fp32"}
    splits = {"NUM_HEADS": 28, "HEAD_DIM": 128, "PADDED_DIM": 128, "SPLITS": 8}
    compiled = []
    for has in (False, True):
        compiled.append(compile_kernel(kernels.add_norm_kernel, {"HAS_SUM": has, "PADDED": 4096}, each, 8))
        for many in (1, 8):
            rotated = heads | {"HALF": 64, "PADDED": 64, "HEADS": many, "HAS_NORMS": has}
            compiled.append(compile_kernel(kernels.rotate_kernel, rotated, each, 1 if many == 1 else 4))
    compiled.append(compile_kernel(kernels.gate_kernel, {"SIZE": 1024}, each, 4))
    compiled.append(compile_kernel(triton_kernel.join_splits_kernel, splits, each, 4))
    assert len(compiled) == 8
    assert all(found.metadata.shared <= SHARED_BYTES for found in compiled)


def pointer(dtype: torch.dtype) -> str:
    return "*fp32" if dtype == torch.float32 else "*bf16"


def compile_kernel(
    kernel: Any, constants: dict[str, int], kinds: dict[str, str], warps: int, stages: int = 2
) -> Any:
    """`kinds` of arguments by name; all others are int32 pointers."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "*i32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages}
    )
