"""Formats are compiled at the door, and what is wrong with one, or with how many wait, is a status."""

from __future__ import annotations

import grpc
import pytest

from coordinator import formats as formats_file
from coordinator.errors import InvalidFieldError, OverloadedError
from coordinator.formats import Formats
from core.families import load_family
from core.grammars import Grammars
from core.output_format import FormatKind, OutputFormat
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import CHECKPOINT, Bench, ask_for, until


async def test_what_is_wrong_names_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    family = load_family(CHECKPOINT)
    formats = Formats(Grammars(CHECKPOINT, family.vocab_size, family.eos_token_ids))
    with pytest.raises(InvalidFieldError, match=r"^format\.regex: "):
        await formats.check("a", OutputFormat(FormatKind.REGEX, "(a"))
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 0)
    with pytest.raises(OverloadedError, match="0 formats of this tenant wait") as caught:
        await formats.check("a", OutputFormat(FormatKind.REGEX, "a"))
    assert (caught.value.quota, caught.value.retry_after_s) == ("formats_per_tenant", 1.0)


async def test_at_the_door_it_is_a_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 0)
    request = ask_for(tenant="a")
    request.format.CopyFrom(pb.OutputFormat(regex="[ab]c"))
    failure = await bench.fail(request)
    assert (failure.code, failure.quota) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "formats_per_tenant")
    monkeypatch.undo()
    assert (await bench.ask(request)).finished
    monkeypatch.setattr(formats_file, "MOST_PER_TENANT", 0)
    assert (await bench.ask(request)).finished  # it is compiled
    await until(lambda: not bench.num_requests)
