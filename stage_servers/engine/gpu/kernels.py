"""Triton kernels between the matrix products of a text layer; imported only where Triton is.

Each reads and writes every value once, computes in float32 and rounds at its end.
"""

# Triton compiles these functions' source: annotations and style follow its rules, not Python's.
# mypy: ignore-errors
# ruff: noqa: N803, PLR0917

import triton
import triton.language as tl


@triton.jit
def add_norm_kernel(
    x,  # [rows, width]: what is added to the residual
    residual,  # [rows, width], in place
    weight,  # [width]
    out,  # [rows, width]
    width,
    eps,
    HAS_SUM: tl.constexpr,  # else the residual is normalised as it is, and x not read
    PADDED: tl.constexpr,
):
    """residual += x; out = RMS norm of the residual, as rounded."""
    start = tl.program_id(0).to(tl.int64) * width
    place = tl.arange(0, PADDED)
    is_in = place < width
    value = tl.load(residual + start + place, mask=is_in, other=0.0).to(tl.float32)
    if HAS_SUM:
        value += tl.load(x + start + place, mask=is_in, other=0.0).to(tl.float32)
        rounded = value.to(residual.dtype.element_ty)
        tl.store(residual + start + place, rounded, mask=is_in)
        value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    factor = tl.load(weight + place, mask=is_in, other=0.0).to(tl.float32)
    tl.store(out + start + place, (value * scale * factor).to(out.dtype.element_ty), mask=is_in)


@triton.jit
def rotate_kernel(
    projected,  # [rows, (NUM_HEADS + 2 * NUM_KV_HEADS) * 2 * HALF]: queries, keys, values
    cos,  # [rows, 2 * HALF] float32
    sin,
    q_norm,  # [2 * HALF], or anything without HAS_NORMS
    k_norm,
    slots,  # [rows] token slots; a row under zero stores nothing
    query,  # [rows, NUM_HEADS * 2 * HALF]
    keys,  # [slots, NUM_KV_HEADS * 2 * HALF], one plane of the pool
    values,
    eps,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,  # of a head's values
    PADDED: tl.constexpr,
    HEADS: tl.constexpr,  # that a program takes
    HAS_NORMS: tl.constexpr,
):
    """Turns queries and keys, after their norms if they have such; keys and values go into the pool."""
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    place = tl.arange(0, PADDED)[None, :]
    is_in = (place < HALF) & (head < NUM_HEADS + 2 * NUM_KV_HEADS)
    source = projected + (row * (NUM_HEADS + 2 * NUM_KV_HEADS) + head) * (2 * HALF) + place
    low = tl.load(source, mask=is_in, other=0.0)
    high = tl.load(source + HALF, mask=is_in, other=0.0)
    first = low.to(tl.float32)
    second = high.to(tl.float32)
    is_query = head < NUM_HEADS
    is_key = (head >= NUM_HEADS) & (head < NUM_HEADS + NUM_KV_HEADS)
    if HAS_NORMS:
        scale = tl.rsqrt(tl.sum(first * first + second * second, 1) / (2 * HALF) + eps)[:, None]
        norm = tl.where(is_query, q_norm + place, k_norm + place)
        first = first * scale * tl.load(norm, mask=is_in, other=0.0).to(tl.float32)
        second = second * scale * tl.load(norm + HALF, mask=is_in, other=0.0).to(tl.float32)
    angle = row * (2 * HALF) + place
    has_angle = place < HALF
    turned_low = first * tl.load(cos + angle, mask=has_angle, other=0.0)
    turned_low -= second * tl.load(sin + angle, mask=has_angle, other=0.0)
    turned_high = second * tl.load(cos + angle + HALF, mask=has_angle, other=0.0)
    turned_high += first * tl.load(sin + angle + HALF, mask=has_angle, other=0.0)
    turned_low = turned_low.to(query.dtype.element_ty)
    turned_high = turned_high.to(query.dtype.element_ty)

    target = query + (row * NUM_HEADS + head) * (2 * HALF) + place
    tl.store(target, turned_low, mask=is_in & is_query)
    tl.store(target + HALF, turned_high, mask=is_in & is_query)
    slot = tl.load(slots + row).to(tl.int64)
    has_slot = is_in & (slot >= 0)
    target = keys + (slot * NUM_KV_HEADS + head - NUM_HEADS) * (2 * HALF) + place
    tl.store(target, turned_low, mask=has_slot & is_key)
    tl.store(target + HALF, turned_high, mask=has_slot & is_key)
    target = values + (slot * NUM_KV_HEADS + head - NUM_HEADS - NUM_KV_HEADS) * (2 * HALF) + place
    is_value = head >= NUM_HEADS + NUM_KV_HEADS
    tl.store(target, low, mask=has_slot & is_value)
    tl.store(target + HALF, high, mask=has_slot & is_value)


@triton.jit
def gate_kernel(
    both,  # [rows, 2 * width]: gate, then up
    out,  # [rows, width]
    width,
    SIZE: tl.constexpr,
):
    """out = silu(gate) * up."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    is_in = place < width
    gate = tl.load(both + 2 * row * width + place, mask=is_in, other=0.0).to(tl.float32)
    up = tl.load(both + (2 * row + 1) * width + place, mask=is_in, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * width + place, value.to(out.dtype.element_ty), mask=is_in)
