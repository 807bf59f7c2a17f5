"""The Triton kernel of the paged attention; imported only where Triton is."""

# Triton compiles this function's source: annotations and style follow its rules, not Python's.
# mypy: ignore-errors
# ruff: noqa: N803, PLR0917

import triton
import triton.language as tl


# Tables grow while sequences run: a kernel of its own for widths that divide by 16 would be compiled then.
@triton.jit(do_not_specialize=["table_width"])
def paged_attention_kernel(
    query,  # [rows, NUM_HEADS, HEAD_DIM]
    keys,  # [slots, NUM_KV_HEADS, HEAD_DIM], one plane of the pool
    values,
    out,  # like query
    work,  # [programs, 2] segment, first row
    row_bounds,  # [segments + 1]
    context_lengths,  # [segments]
    block_table,  # [segments, table_width]
    parts,  # [programs, NUM_HEADS, SPLITS, HEAD_DIM] float32: what each split of a row mixed, if several
    part_sums,  # [programs, NUM_HEADS, SPLITS, 2] float32: its highest score, and the sum of its weights
    table_width,
    scale,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads per KV head
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    QUERIES: tl.constexpr,  # at least ROWS * GROUP, a power of two
    KEYS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    SPLITS: tl.constexpr,  # programs that share the tokens of a sequence; several for one row only
):
    segment = tl.load(work + 2 * tl.program_id(0))
    first_row = tl.load(work + 2 * tl.program_id(0) + 1)
    kv_head = tl.program_id(1)
    end_row = tl.load(row_bounds + segment + 1)
    length = tl.load(context_lengths + segment)

    # Query q of the program is head q % GROUP of row q // GROUP.
    q = tl.arange(0, QUERIES)
    row = first_row + q // GROUP
    has_query = (q < ROWS * GROUP) & (row < end_row)
    token = length - end_row + row  # the row's place in its sequence
    dim = tl.arange(0, PADDED_DIM)
    has_dim = dim < HEAD_DIM
    place = (row[:, None] * NUM_HEADS + kv_head * GROUP + q[:, None] % GROUP) * HEAD_DIM + dim[None, :]
    heads = tl.load(query + place, mask=has_query[:, None] & has_dim[None, :], other=0.0)

    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, PADDED_DIM], tl.float32)
    last_row = tl.minimum(first_row + ROWS, end_row) - 1
    num_seen = length - end_row + last_row + 1
    split = tl.program_id(2)
    share = tl.cdiv(tl.cdiv(num_seen, KEYS), SPLITS) * KEYS
    for start in range(split * share, tl.minimum((split + 1) * share, num_seen), KEYS):
        seen = start + tl.arange(0, KEYS)
        is_seen = seen < num_seen
        block = tl.load(block_table + segment * table_width + seen // BLOCK_TOKENS, mask=is_seen, other=0)
        slot = block.to(tl.int64) * BLOCK_TOKENS + seen % BLOCK_TOKENS
        source = (slot[:, None] * NUM_KV_HEADS + kv_head) * HEAD_DIM + dim[None, :]
        mask = is_seen[:, None] & has_dim[None, :]
        key = tl.load(keys + source, mask=mask, other=0.0)
        scores = tl.dot(heads, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where((seen[None, :] <= token[:, None]) & is_seen[None, :], scores, float("-inf"))
        best = tl.maximum(top, tl.max(scores, 1))
        # A query that is none has seen nothing: its maximum stays at minus infinity.
        base = tl.where(best == float("-inf"), 0.0, best)
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(top - base)
        value = tl.load(values + source, mask=mask, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        top = best
    if SPLITS == 1:
        mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(out + place, mixed.to(heads.dtype), mask=has_query[:, None] & has_dim[None, :])
    else:
        part = (tl.program_id(0) * NUM_HEADS + kv_head * GROUP + q % GROUP) * SPLITS + split
        target = part[:, None] * HEAD_DIM + dim[None, :]
        tl.store(parts + target, mixed, mask=has_query[:, None] & has_dim[None, :])
        tl.store(part_sums + 2 * part, top, mask=has_query)
        tl.store(part_sums + 2 * part + 1, total, mask=has_query)


@triton.jit
def join_splits_kernel(
    parts,  # [programs, NUM_HEADS, SPLITS, HEAD_DIM]
    part_sums,  # [programs, NUM_HEADS, SPLITS, 2]
    work,  # [programs, 2] segment, row
    out,  # [rows, NUM_HEADS, HEAD_DIM]
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One program per row and head: what the splits would have found together."""
    row = tl.load(work + 2 * tl.program_id(0) + 1)
    head = tl.program_id(1)
    split = tl.arange(0, SPLITS)
    dim = tl.arange(0, PADDED_DIM)
    has_dim = dim < HEAD_DIM
    part = (tl.program_id(0) * NUM_HEADS + head) * SPLITS + split
    top = tl.load(part_sums + 2 * part)
    best = tl.max(top, 0)
    # A split without a token has seen nothing, and a row without a token has only such.
    weight = tl.exp(top - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(weight * tl.load(part_sums + 2 * part + 1), 0)
    mixed = tl.load(parts + part[:, None] * HEAD_DIM + dim[None, :], mask=has_dim[None, :], other=0.0)
    value = tl.sum(mixed * weight[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    target = out + (row * NUM_HEADS + head) * HEAD_DIM + dim
    tl.store(target, value.to(out.dtype.element_ty), mask=has_dim)
