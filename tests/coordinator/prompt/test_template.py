"""Equal to transformers' own apply_chat_template, and as forgiving as it of templates' habits."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from coordinator.calls import ChatMessage, ChatPart, ImageSource
from coordinator.prompt.builder import load_builder
from coordinator.prompt.template import ChatTemplate, TemplateError, load_template
from tests.checkpoints import write_json, write_tokenizer
from tests.coordinator.conftest import CHECKPOINT

PICTURE = ChatPart(image=ImageSource(digest=b"d" * 32))
WORDS = ("hello", "  two  spaces", "\n\nlines\n", "naïve €", "😀", "1+1=", "What is left of it?", "", "\t")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tiny = tmp_path_factory.mktemp("tiny")
    write_tokenizer(tiny)
    return {"demo": CHECKPOINT, "tiny": tiny}


def conversation(rng: random.Random) -> tuple[ChatMessage, ...]:
    messages = []
    if rng.random() < 0.5:
        messages.append(ChatMessage("system", (ChatPart(text="Be brief."),)))
    for number in range(rng.randint(1, 4)):
        parts = [
            PICTURE if rng.random() < 0.3 else ChatPart(text=rng.choice(WORDS))
            for _ in range(rng.randint(1, 4))
        ]
        messages.append(ChatMessage("assistant" if number % 2 else "user", tuple(parts)))
    return tuple(messages)


def for_transformers(messages: tuple[ChatMessage, ...]) -> list[dict[str, object]]:
    return [
        {
            "role": message.role,
            "content": [
                {"type": "image"} if part.image is not None else {"type": "text", "text": part.text}
                for part in message.parts
            ],
        }
        for message in messages
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_equal_to_transformers(folders: dict[str, Path], name: str) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folders[name])
    builder = load_builder(folders[name])
    rng = random.Random(7)
    for _ in range(40):
        messages = conversation(rng)
        expected = reference.apply_chat_template(
            for_transformers(messages), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert builder.build_now(messages) == list(expected)


def render(source: str, **tokens: str) -> str:
    return ChatTemplate(source, tokens).render([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", "<s>hi"),
        ("{% for m in messages %}\n  {{- m.content }}\n{% endfor %}", "hi"),
        ("{{ {'a': '<é'} | tojson }}", '{"a": "<é"}'),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}y{% endfor %}z", "z"),
        ("{{ strftime_now('%%') }}", "%"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
    ],
)
def test_what_templates_use(source: str, text: str) -> None:
    assert render(source, bos_token="<s>").strip() == text


def test_a_template_may_refuse() -> None:
    with pytest.raises(TemplateError, match="no system here"):
        render("{{ raise_exception('no system here') }}")


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"])
def test_templates_stay_in_the_sandbox(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source)


def test_parts_or_strings() -> None:
    assert load_template(CHECKPOINT).takes_parts
    assert not ChatTemplate("{{ messages[0]['content'] }}", {}).takes_parts
    assert not ChatTemplate("{{ messages[0]['content'] | trim }}", {}).takes_parts


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": "{{ eos_token }}", "eos_token": {"content": "</s>"}},
        {"chat_template": [{"name": "default", "template": "{{ eos_token }}"}], "eos_token": "</s>"},
    ],
)
def test_templates_of_the_tokenizer_config(tmp_path: Path, config: dict[str, object]) -> None:
    write_json(tmp_path / "tokenizer_config.json", config)
    assert load_template(tmp_path).render([]) == "</s>"


@pytest.mark.parametrize(
    ("source", "word"),
    [(None, "chat_template.jinja"), ("{% for %}", "chat template")],
    ids=["none", "broken"],
)
def test_a_missing_or_broken_template_is_named(tmp_path: Path, source: str | None, word: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({}))
    if source is not None:
        (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(ValueError, match=word):
        load_template(tmp_path)
