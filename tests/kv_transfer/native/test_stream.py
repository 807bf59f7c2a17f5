"""Large copies past the caches are copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.compiled import NativeError
from kv_transfer.native import stream
from kv_transfer.native.stream import STREAM_BYTES, StreamCopy


@settings(deadline=None, max_examples=40)
@given(
    num_groups=st.integers(1, 6),
    num_rows=st.integers(1, 9),
    row_bytes=st.sampled_from([512, 520, 4096, 8192, 16384, 70_001, 400_000]),
    gaps=st.tuples(st.sampled_from([0, 64, 100]), st.sampled_from([0, 64, 7])),
    offsets=st.tuples(st.integers(0, 70), st.integers(0, 70)),
)
def test_rows_arrive_and_nothing_beside_them(
    num_groups: int, num_rows: int, row_bytes: int, gaps: tuple[int, int], offsets: tuple[int, int]
) -> None:
    copies = StreamCopy()
    assert copies.is_native
    rng = np.random.default_rng(1)
    there, here = (
        rng.integers(0, 256, offset + num_groups * num_rows * (row_bytes + gap), np.uint8)[offset:].reshape(
            num_groups, num_rows, -1
        )
        for gap, offset in zip(gaps, offsets, strict=True)
    )
    expected = there.copy()
    expected[..., :row_bytes] = here[..., :row_bytes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "STREAM_BYTES", 0)
        patch.setattr(np, "copyto", None)
        copies.copy(there[..., :row_bytes], here[..., :row_bytes])
    assert np.array_equal(there, expected)


def test_large_rows_take_the_native_way(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(1).integers(0, 256, (4, STREAM_BYTES // 2048, 1024), np.uint8)
    target = np.zeros_like(source)
    monkeypatch.setattr(np, "copyto", None)
    StreamCopy().copy(target, source)
    assert np.array_equal(target, source)


def test_a_machine_without_a_compiler_copies_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise NativeError("no compiler today")

    monkeypatch.setattr(stream, "_load", refuse)
    copies = StreamCopy()
    assert not copies.is_native
    assert "no compiler today" in caplog.text
    source = np.full((2, 1, STREAM_BYTES), 7, np.uint8)
    target = np.zeros_like(source)
    copies.copy(target, source)
    assert np.array_equal(target, source)
