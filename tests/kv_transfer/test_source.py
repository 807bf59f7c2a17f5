"""Where a sender's bytes come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kv_transfer.pool import embedding_layout
from kv_transfer.runs import BlockTable
from kv_transfer.source import LateSource, TensorSource, gather, strided

LAYOUT = embedding_layout("model", torch.float32, width=8)


@pytest.mark.parametrize("is_on_device", [False, True])
def test_a_part_of_a_tensor_is_read_from_where_it_lies(
    monkeypatch: pytest.MonkeyPatch, is_on_device: bool
) -> None:
    """As the second embedding of those that one forward made."""
    both = torch.arange(40 * 8, dtype=torch.float32).view(40, 8)
    source = LateSource(LAYOUT, 25, lambda: both[15:])
    if is_on_device:
        monkeypatch.setattr(TensorSource, "is_on_device", True)
        monkeypatch.setattr(source._found, "_bytes", None)
    end = source.end(source.layout.heads)
    found = gather(source, end, BlockTable((0,), 25), range(1), range(3, 20))
    assert np.array_equal(found.view(np.float32).reshape(17, 8), both[18:35].numpy())


def test_words_of_any_size_are_counted_from_where_a_tensor_starts() -> None:
    both = torch.arange(40 * 8, dtype=torch.float32).view(40, 8)
    source = TensorSource.of_tokens(both[15:], LAYOUT)
    (run,) = BlockTable((0,), 25).runs(3, 17)
    from kv_transfer.descriptors import copies

    end = source.end(source.layout.heads)
    (copy,) = copies(end, iter((run,)), end, iter((run,)))
    for elements in (source.elements, source.elements.view(torch.uint8)):
        found = strided(elements, end, range(1), copy.source).reshape(-1).view(torch.float32)
        assert torch.equal(found.view(17, 8), both[18:35])
