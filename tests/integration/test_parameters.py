"""Every parameter has its effect at the end of a disaggregated cluster, over gRPC."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.families import load_family
from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client import GenerateResult, InvalidRequest
from tests.checkpoints import build_checkpoint
from tests.integration.asking import tokenizer_of
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

WORDS = "what is left of the large circle?"
TOOLED = """{% if tools %}tools:{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}
{%- if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}
{%- endfor %}{% endif %}{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build_checkpoint(tmp_path_factory.mktemp("models") / "first")
    (path / "chat_template.jinja").write_text(TOOLED)
    return path


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state_dir = tmp_path_factory.mktemp("cluster") / "state"
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "300"]
    with cluster(state_dir, model, "e1p1d1", *options) as up:
        yield up
        up.assert_idle()


def ask(running: Running, **options: Any) -> GenerateResult:
    """Greedy and 40 tokens long, unless the options say something else."""
    if "format" not in options and "stop" not in options:
        options = {"ignore_eos": True} | options
    return running.client.generate(WORDS, **({"max_tokens": 40} | options)).result()


def repeats(result: GenerateResult) -> int:
    return len(result.token_ids) - len(set(result.token_ids))


@pytest.fixture(scope="module")
def plain(running: Running) -> GenerateResult:
    return ask(running)


@pytest.fixture(scope="module")
def drawn(running: Running) -> GenerateResult:
    return ask(running, **DRAWN)


DRAWN: dict[str, Any] = {"temperature": 2.5, "seed": 11}
Check = Callable[[GenerateResult, GenerateResult], bool]
AGAINST_PLAIN: dict[str, tuple[dict[str, Any], Check]] = {
    "max_tokens": ({"max_tokens": 7}, lambda one, plain: one.token_ids == plain.token_ids[:7]),
    "temperature": (DRAWN, lambda one, plain: one.token_ids != plain.token_ids),
    "top_k": (DRAWN | {"top_k": 1}, lambda one, plain: one.token_ids == plain.token_ids),
    "top_p": (DRAWN | {"top_p": 1e-6}, lambda one, plain: one.token_ids == plain.token_ids),
    "min_p": (DRAWN | {"min_p": 1.0}, lambda one, plain: one.token_ids == plain.token_ids),
    "presence_penalty": (
        {"presence_penalty": 2.0},
        lambda one, plain: one.token_ids != plain.token_ids and repeats(one) <= repeats(plain),
    ),
    "frequency_penalty": (
        {"frequency_penalty": 2.0},
        lambda one, plain: one.token_ids != plain.token_ids and repeats(one) <= repeats(plain),
    ),
    "repetition_penalty": (
        {"repetition_penalty": 10.0},
        lambda one, plain: one.token_ids != plain.token_ids and repeats(one) <= repeats(plain),
    ),
    "logprobs": (
        {"logprobs": 3},
        lambda one, plain: (
            one.token_ids == plain.token_ids
            and len(one.logprobs) == 40
            and [each.top[0].token_id for each in one.logprobs] == list(plain.token_ids)
        ),
    ),
    "logit_bias": ({"logit_bias": {65: 100.0}}, lambda one, _: set(one.token_ids) == {65}),
}


@pytest.mark.parametrize("name", AGAINST_PLAIN)
def test_against_the_plain_answer(running: Running, plain: GenerateResult, name: str) -> None:
    options, holds = AGAINST_PLAIN[name]
    result = ask(running, **options)
    assert holds(result, plain), (result.token_ids, plain.token_ids)


def test_the_table_has_every_parameter() -> None:
    names = {field.name for field in pb.SamplingParams.DESCRIPTOR.fields}
    assert names - AGAINST_PLAIN.keys() == {"seed"}


def test_seed(running: Running, drawn: GenerateResult) -> None:
    assert ask(running, **DRAWN).token_ids == drawn.token_ids
    assert ask(running, **DRAWN | {"seed": 12}).token_ids != drawn.token_ids


def test_every_stage_was_somewhere_else(plain: GenerateResult) -> None:
    stages = {span.stage: span.instance for span in plain.stages}
    assert stages.keys() == {"prefill", "decode"}
    assert len(set(stages.values())) == 2


def test_a_penalised_bias_draws_differently_from_each_alone(running: Running, plain: GenerateResult) -> None:
    """Both reach the decode instance, where all tokens but the first are made."""
    top = max(set(plain.token_ids), key=plain.token_ids.count)
    biased = ask(running, logit_bias={top: 5.0})
    both = ask(running, logit_bias={top: 5.0}, frequency_penalty=2.0)
    assert biased.token_ids.count(top) > both.token_ids.count(top)


def test_stop_strings(running: Running, plain: GenerateResult) -> None:
    wanted = plain.text[10:13]
    result = ask(running, stop=[wanted])
    assert (result.finish_reason, result.stop_string) == ("stop", wanted)
    assert result.text == plain.text[: plain.text.index(wanted)]


def test_stop_token_ids(running: Running, plain: GenerateResult) -> None:
    token = plain.token_ids[20]
    result = ask(running, stop_token_ids=[token])
    assert result.finish_reason == "stop"
    assert result.token_ids == plain.token_ids[: plain.token_ids.index(token) + 1]


def test_ignore_eos(running: Running, model: Path) -> None:
    (eos,) = load_family(model).eos_token_ids
    biased = {"logit_bias": {eos: 100.0}}
    heeded = ask(running, ignore_eos=False, **biased)
    assert (heeded.finish_reason, heeded.token_ids) == ("stop", (eos,))
    assert ask(running, **biased).token_ids == (eos,) * 40


def test_raw_prompts(running: Running, model: Path, plain: GenerateResult) -> None:
    tokenizer = tokenizer_of(model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": WORDS}], add_generation_prompt=True, tokenize=False
    )
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for prompt in (text, token_ids):
        result = running.client.generate(prompt=prompt, max_tokens=40, ignore_eos=True).result()
        assert result.token_ids == plain.token_ids
        assert result.usage.prompt_tokens == len(token_ids)


def test_tools_and_their_calls(running: Running, model: Path) -> None:
    function = {"name": "look", "description": "at it", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": {"far": True}}}
    messages = [
        {"role": "user", "content": WORDS},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "nothing", "tool_call_id": "c"},
    ]
    text = tokenizer_of(model).apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=False
    )
    options: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}
    result = running.client.generate(messages, tools=tools, **options).result()
    assert "look" in text
    assert result.token_ids == running.client.generate(prompt=text, **options).result().token_ids


SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "places": {"type": "array", "maxItems": 3}},
    "required": ["colour", "places"],
    "additionalProperties": False,
}
SCHEMA["properties"]["places"]["items"] = {"type": "boolean"}  # type: ignore[index]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 4}])
def test_formats(running: Running, model: Path, sampling: dict[str, Any]) -> None:
    blanks = {tokenizer_of(model)(blank)["input_ids"][0]: -100.0 for blank in " \t\r\n"}
    sampling = sampling | {"max_tokens": 200, "logit_bias": blanks}
    answer = json.loads(ask(running, format={"json_schema": SCHEMA}, **sampling).text)
    assert answer["colour"] in ("red", "blue")
    assert all(isinstance(place, bool) for place in answer["places"])
    assert re.fullmatch("[a-c]{5,30}!", ask(running, format={"regex": "[a-c]{5,30}!"}, **sampling).text)
    grammar = 'start: ("left" | "right") "," ("up" | "down") "."'
    places = ask(running, format={"grammar": grammar}, **sampling).text
    assert re.fullmatch(r"(left|right),(up|down)\.", places)
    quote = {tokenizer_of(model)(mark)["input_ids"][0]: 30.0 for mark in '"}'}
    objects = ask(running, format="json_object", **sampling | {"logit_bias": blanks | quote})
    assert isinstance(json.loads(objects.text), dict)


def test_a_format_that_does_not_compile_is_refused(running: Running) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ask(running, format={"json_schema": {"type": "nothing"}})
    assert caught.value.field == "format.json_schema"
