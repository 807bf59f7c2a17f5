"""What one program of the Triton kernel works on, and that it compiles for a card that is not here."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from stage_servers.engine.attention.triton_paged import Tile, tile

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
@pytest.mark.parametrize("most_rows", [1, 16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(28, 4), (16, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_for_hopper(dtype: torch.dtype, heads: int, kv_heads: int, most_rows: int) -> None:
    compiled = compile_kernel(tile(dtype, heads // kv_heads, most_rows), dtype, heads, kv_heads)
    assert compiled.metadata.shared <= SHARED_BYTES


def compile_kernel(each: Tile, dtype: torch.dtype, heads: int, kv_heads: int) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from stage_servers.engine.attention.triton_kernel import paged_attention_kernel as kernel

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
    }
    values = "*fp32" if dtype == torch.float32 else "*bf16"
    kinds = dict.fromkeys(("query", "keys", "values", "out"), values) | {
        "scale": "fp32",
        "table_width": "i32",
    }
    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "*i32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    options = {"num_warps": each.warps, "num_stages": each.stages}
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)
