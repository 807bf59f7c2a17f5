"""An encoder that stops between layers makes the same embeddings, bit for bit."""

from __future__ import annotations

import pytest
import torch

from stage_servers.engine.families.adapter import PixelInput
from tests.exactness import expand
from tests.stage_servers.engine.conftest import Pair


def pixels(pair: Pair) -> list[PixelInput]:
    """Three pictures, one of them of many windows."""
    question = pair.question(4, pictures=[(112, 112), (60, 90), (308, 252)])
    _, spans = expand(pair.oracle.family, question)
    return [pair.model.preprocess(data, span) for data, span in zip(question.pictures, spans, strict=True)]


def whole(pair: Pair, inputs: list[PixelInput]) -> torch.Tensor:
    """By the forward of transformers' own encoder."""
    vision = pair.plain_model.family.vision_model
    patches = torch.cat([each.pixels for each in inputs])
    with torch.inference_mode():
        found = vision(patches, grid_thw=torch.tensor([each.grid for each in inputs]))
    return torch.cat([found.pooler_output, *getattr(found, "deepstack_features", [])], dim=1)


def test_encoding_equals_that_of_transformers(pair: Pair) -> None:
    inputs = pixels(pair)
    assert torch.equal(torch.cat(pair.plain_model.encode(inputs)), whole(pair, inputs))


@pytest.mark.parametrize("num_parts", [2, 3, 100])
def test_parts_equal_the_whole(pair: Pair, num_parts: int) -> None:
    inputs = pixels(pair)
    wanted = pair.model.encode(inputs)
    parts = list(pair.model.encode_in_parts(inputs, num_parts))
    assert parts[:-1] == [None] * (num_parts - 1)
    assert parts[-1] is not None
    assert all(torch.equal(*both) for both in zip(parts[-1], wanted, strict=True))


def test_others_may_run_between_two_parts(pair: Pair) -> None:
    """Outside of inference mode, as anybody would; another encoding in between changes nothing."""
    inputs = pixels(pair)
    wanted = pair.model.encode(inputs)
    parts = pair.model.encode_in_parts(inputs, 2)
    assert next(parts) is None
    assert not torch.is_inference_mode_enabled()
    others = pair.model.encode(inputs[:1])
    embeddings = next(parts)
    assert embeddings is not None
    assert all(torch.equal(*both) for both in zip(embeddings, wanted, strict=True))
    assert torch.allclose(others[0], wanted[0], atol=1e-5)
