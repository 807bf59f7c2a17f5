"""What all requests of one conversation have in common."""

from __future__ import annotations

from hashlib import blake2b

from coordinator.calls import ChatMessage, GenerateCall, RawPrompt

_TEXT_CHARS = 1024  # that count of each text
_DATA_BYTES = 4096
_TOKENS = 64


def conversation_of(call: GenerateCall) -> bytes:
    """The same for all turns of a chat, which are sent with all that came before: a hash of the tenant and
    of the user's first message. Raw prompts are known by how they begin.
    """
    digest = blake2b(call.tenant.encode(), digest_size=16)
    if call.prompt is not None:
        digest.update(_of_prompt(call.prompt))
    else:
        firsts = [message for message in call.messages if message.role == "user"][:1] or call.messages[:1]
        for message in firsts:
            digest.update(_of_message(message))
    return digest.digest()


def _of_prompt(prompt: RawPrompt) -> bytes:
    if prompt.token_ids is not None:
        return repr(prompt.token_ids[:_TOKENS]).encode()
    return _begin(prompt.text or "")


def _of_message(message: ChatMessage) -> bytes:
    found = b""
    for part in message.parts:
        image = part.image
        if image is not None:
            found += image.digest or (image.url or "").encode() or (image.data or b"")[:_DATA_BYTES]
        found += b"\0" + _begin(part.text or "")
    return found


def _begin(text: str) -> bytes:
    return text[:_TEXT_CHARS].encode(errors="surrogatepass")
