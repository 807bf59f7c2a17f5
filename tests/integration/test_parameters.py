"""Every parameter, sent through every door to the end of a disaggregated cluster, and its effect there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from pydantic import BaseModel

from coordinator.oip.content import CONTENT_INPUTS
from coordinator.oip.options import OPTIONS
from coordinator.openai.chat_schema import ChatRequest
from coordinator.openai.schema import CompletionRequest
from elasticmm.v1 import inference_pb2 as pb
from tests.checkpoints import build_checkpoint, write_processor
from tests.exactness import make_picture
from tests.integration.asking import tokenizer_of
from tests.integration.parameters.asks import CHAT, COMPLETION, GREEDY, GRPC, OIP, Answer, Ask
from tests.integration.parameters.grpc_doors import GrpcDoor, OipDoor
from tests.integration.parameters.http_doors import HttpDoor, chat_body, completion_body
from tests.integration.parameters.own_rows import OPEN_INFERENCE, OPENAI
from tests.integration.parameters.rows import DRAWN, ROWS, SAMPLING, pictured
from tests.integration.parameters.seen import Seen, render, seen_at
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

TABLE = (ROWS | {f"OpenAI's {name}": row for name, row in OPENAI.items()}) | {
    f"OIP's {name}": row for name, row in OPEN_INFERENCE.items()
}
CASES = [(name, door) for name, row in TABLE.items() for door in row.doors]
NUM_AT_ONCE = 16

TOOLED = """{% if tools %}tools:{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}{{ message.tool_call_id }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}
{%- if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}
{%- endfor %}{% endif %}{% for call in message.tool_calls %}{{ call.id }}{{ call.function | tojson }}
{%- endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""

Door = GrpcDoor | HttpDoor | OipDoor
Answers = dict[
    tuple[str, str], tuple[Future[Answer], Future[Answer] | None]
]  # with the row's parameter, without


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build_checkpoint(tmp_path_factory.mktemp("models") / "first")
    (path / "chat_template.jinja").write_text(TOOLED)
    write_processor(path, patch_px=14, min_pixels=56 * 56, max_pixels=1024 * 1024)
    return path


@pytest.fixture(scope="module", params=["e1p1d1", "ep1d1"])
def running(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    state_dir = tmp_path_factory.mktemp("cluster") / "state"
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "3000"]
    with cluster(state_dir, model, request.param, *options) as up:
        yield up
        up.assert_idle()


def open_doors(running: Running, tokenizer: Any) -> dict[str, Door]:
    to_completion = partial(completion_body, render=partial(render, tokenizer))
    return {
        GRPC: GrpcDoor(running.client),
        CHAT: HttpDoor(running.http, "/v1/chat/completions", chat_body),
        COMPLETION: HttpDoor(running.http, "/v1/completions", to_completion),
        OIP: OipDoor(running.address),
    }


@pytest.fixture(scope="module")
def doors(running: Running, model: Path) -> Iterator[dict[str, Door]]:
    opened = open_doors(running, tokenizer_of(model))
    yield opened
    for door in opened.values():
        door.close()


@pytest.fixture(scope="module")
def seen(running: Running, model: Path, doors: dict[str, Door]) -> Seen:
    plain, drawn = (doors[GRPC].ask(Ask(GREEDY | more)) for more in ({}, DRAWN))
    return seen_at(running, model, plain, drawn)


@pytest.fixture(scope="module")
def answers(running: Running, doors: dict[str, Door], seen: Seen) -> Iterator[Answers]:
    """All rows through all doors at once."""
    where = running.state_dir.parent.name
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads:

        def submit(name: str, door: str) -> tuple[Future[Answer], Future[Answer] | None]:
            base = TABLE[name].base_ask()
            ask = TABLE[name].ask(seen).for_door(door, where)
            return (
                threads.submit(doors[door].ask, ask),
                None if base is None else threads.submit(doors[door].ask, base),
            )

        yield {case: submit(*case) for case in CASES}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """By row: what the first door of the first cluster answered, and so what all others have to."""
    return {}


@pytest.mark.parametrize(("name", "door"), CASES, ids=[f"{door}: {name}" for name, door in CASES])
def test_effect(
    seen: Seen,
    answers: Answers,
    texts: dict[str, str],
    name: str,
    door: str,
) -> None:
    row = TABLE[name]
    answered, without = answers[name, door]
    assert row.holds(answered.result(), seen), answered.result()
    if without is not None:
        assert not row.holds(without.result(), seen), without.result()
    if row.is_same:
        assert answered.result().text == texts.setdefault(name, answered.result().text)


def test_every_stage_was_somewhere_else(running: Running, doors: dict[str, Door], answers: Answers) -> None:
    """The table's pictures may be in a cache by the time a row is sent; the last one is not."""
    unseen = doors[GRPC].ask(Ask(GREEDY, pictured(make_picture(np.random.default_rng(5), 112, 112))))
    results = [*(answers[name, GRPC][0].result().raw for name in SAMPLING), unseen.raw]
    stages = {(span.stage, span.instance) for result in results for span in result.stages}
    assert sorted(stage for stage, _ in stages) == ["decode", "encode", "prefill"]
    assert len({instance for _, instance in stages}) == len(running.status().instances)


def test_every_field_of_the_wire_has_a_row(doors: dict[str, Door], seen: Seen) -> None:
    sent = {
        field
        for name, door in CASES
        if door == GRPC
        for field in fields_in(doors[door].sent(ask_of(name, seen)))
    }
    assert sorted(fields_of(pb.GenerateRequest.DESCRIPTOR) - sent) == []


@pytest.mark.parametrize(("door", "schema"), [(CHAT, ChatRequest), (COMPLETION, CompletionRequest)])
def test_every_field_of_a_body_has_a_row(
    doors: dict[str, Door], seen: Seen, door: str, schema: type[BaseModel]
) -> None:
    sent = {
        key for name, each in CASES if each == door for key in keys_in(doors[door].sent(ask_of(name, seen)))
    }
    assert sorted(names_of(schema.model_json_schema()) - sent) == []


def test_every_option_and_input_has_a_row(doors: dict[str, Door], seen: Seen) -> None:
    requests = [doors[OIP].sent(ask_of(name, seen)) for name, door in CASES if door == OIP]
    sent = {
        name
        for request in requests
        for name in (*request.parameters, *(each.name for each in request.inputs))
    }
    assert sorted((OPTIONS.keys() | CONTENT_INPUTS.keys()) - sent) == []


def ask_of(name: str, seen: Seen) -> Ask:
    return TABLE[name].ask(seen)


def fields_of(message: Descriptor, path: str = "") -> set[str]:
    """Paths of all fields, and of those within them; what comes from Google and maps count as one."""
    paths = set()
    for each in message.fields:
        inner = each.message_type
        if inner is None or not inner.full_name.startswith("elasticmm.") or inner.GetOptions().map_entry:
            paths.add(path + each.name)
        else:
            paths |= fields_of(inner, f"{path}{each.name}.")
    return paths


def fields_in(message: Message, path: str = "") -> set[str]:
    """Paths of the fields that are set, as `fields_of` has them."""
    paths = set()
    for each, value in message.ListFields():
        inner = each.message_type
        if inner is None or not inner.full_name.startswith("elasticmm.") or inner.GetOptions().map_entry:
            paths.add(path + each.name)
            continue
        for one in [value] if isinstance(value, Message) else value:
            paths |= fields_in(one, f"{path}{each.name}.")
    return paths


def keys_in(value: Any) -> set[str]:
    """Of all objects, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for each in value.values() for key in keys_in(each)}
    return {key for each in value for key in keys_in(each)} if isinstance(value, list) else set()


def names_of(schema: dict[str, Any]) -> set[str]:
    """Of all fields that a JSON schema has, those of its parts included."""
    return {
        name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})
    }
