"""What is the same for all turns of a chat, and different for others."""

from __future__ import annotations

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ImageSource, RawPrompt
from coordinator.conversations import conversation_of


def said(role: str, text: str, image: ImageSource | None = None) -> ChatMessage:
    parts = (ChatPart(text=text),) if image is None else (ChatPart(image=image), ChatPart(text=text))
    return ChatMessage(role, parts)


def chat(*messages: ChatMessage, tenant: str = "t") -> bytes:
    return conversation_of(GenerateCall(messages=messages, tenant=tenant))


def test_later_turns_belong_to_the_first() -> None:
    system, first = said("system", "be kind"), said("user", "hello")
    begun = chat(system, first)
    assert chat(system, first, said("assistant", "hi"), said("user", "more")) == begun
    assert chat(said("system", "be short"), first) == begun
    assert chat(system, said("user", "hallo")) != begun
    assert chat(system, first, tenant="u") != begun


def test_pictures_tell_conversations_apart() -> None:
    sources = [
        ImageSource(digest=b"1" * 32),
        ImageSource(digest=b"2" * 32),
        ImageSource(url="http://x/1"),
        ImageSource(data=b"png"),
    ]
    assert len({chat(said("user", "what is it?", source)) for source in sources}) == len(sources)


def test_raw_prompts_are_known_by_how_they_begin() -> None:
    def raw(prompt: RawPrompt) -> bytes:
        return conversation_of(GenerateCall(prompt=prompt))

    assert raw(RawPrompt(text="a" * 2000)) == raw(RawPrompt(text="a" * 3000)) != raw(RawPrompt(text="b"))
    ids = tuple(range(100))
    assert (
        raw(RawPrompt(token_ids=ids)) == raw(RawPrompt(token_ids=(*ids, 7))) != raw(RawPrompt(token_ids=(1,)))
    )


def test_a_chat_without_a_user_is_known_by_its_first_message() -> None:
    assert chat(said("system", "a")) != chat(said("system", "b"))
    assert chat()
