"""A chat over HTTP as bytes on a socket: what a client must do at the least, and no more."""

from __future__ import annotations

import json
import socket

_CONTENT = b'"content":"'
_RECEIVE_BYTES = 1 << 16


class SseStream:
    """One streaming chat on a connection of its own."""

    def __init__(self, host: str, port: int, body: dict[str, object]) -> None:
        self._pending = b""
        self.is_ended = False
        self.socket = socket.create_connection((host, port))
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + data)

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self) -> list[int]:
        """The number of characters in each event that came; blocks until something is there."""
        data = self.socket.recv(_RECEIVE_BYTES)
        *events, self._pending = (self._pending + data).split(b"\n\n")
        if not data or any(b"data: [DONE]" in event for event in events):
            self.is_ended = True
        return [_num_characters(event) for event in events]

    def close(self) -> None:
        self.socket.close()


def _num_characters(event: bytes) -> int:
    """Of its text, which has nothing that JSON escapes."""
    start = event.find(_CONTENT)
    if start < 0:
        return 0
    start += len(_CONTENT)
    return event.index(b'"', start) - start
