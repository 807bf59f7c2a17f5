"""HTTP/2 as far as a gRPC client needs it that must cost less than the server it measures."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_MAX_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65535
_PREFIX_BYTES = 5  # before each gRPC message: one byte of flags, four of length
_RECEIVE_BYTES = 1 << 18


@dataclass(slots=True)
class Received:
    """What one read brought: whole messages by stream, and streams that ended."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


class GrpcConnection:
    """One connection with many server streams. It takes all that comes, through windows wide open."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._authority = f"{host}:{port}"
        self._next_stream = 1
        self._pending = b""
        self._parts: dict[int, bytes] = {}  # begun messages by stream
        self._window = _FIRST_WINDOW  # bytes that the server still takes
        self._unsent: list[tuple[int, bytes]] = []
        settings = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in ((1, 0), (2, 0), (4, _MAX_WINDOW))
        )
        widened = _frame(_WINDOW_UPDATE, 0, 0, (_MAX_WINDOW - _FIRST_WINDOW).to_bytes(4, "big"))
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + widened)

    def fileno(self) -> int:
        return self.socket.fileno()

    def call(self, path: str, message: bytes) -> int:
        """Begins a call; its stream's number. The message must fit into one frame."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, self._headers(path)))
        self._unsent.append((stream, b"\0" + len(message).to_bytes(4, "big") + message))
        self._send()
        return stream

    def cancel(self, stream: int) -> None:
        self.socket.sendall(_frame(_RST_STREAM, 0, stream, (8).to_bytes(4, "big")))

    def receive(self) -> Received:
        """Blocks until something is there. Raises ConnectionError at the end."""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        received = Received()
        for kind, flags, stream, payload in self._frames(data):
            if kind == _DATA:
                received.messages += [(stream, message) for message in self._messages(stream, payload)]
            self._note(kind, flags, stream, payload)
            if (kind in (_DATA, _HEADERS) and flags & _END_STREAM) or kind == _RST_STREAM:
                self._parts.pop(stream, None)
                received.ended.append(stream)
        return received

    def close(self) -> None:
        self.socket.close()

    def _headers(self, path: str) -> bytes:
        """POST and http by their numbers in HPACK's table, the rest spelt out."""
        fields = {
            ":path": path,
            ":authority": self._authority,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        return b"\x83\x86" + b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._pending + data
        start = 0
        while len(data) - start >= 9:
            end = start + 9 + int.from_bytes(data[start : start + 3], "big")
            if end > len(data):
                break
            stream = int.from_bytes(data[start + 5 : start + 9], "big")
            yield data[start + 3], data[start + 4], stream, data[start + 9 : end]
            start = end
        self._pending = data[start:]

    def _messages(self, stream: int, payload: bytes) -> Iterator[bytes]:
        data = self._parts.pop(stream, b"") + payload
        while len(data) >= _PREFIX_BYTES:
            end = _PREFIX_BYTES + int.from_bytes(data[1:_PREFIX_BYTES], "big")
            if end > len(data):
                break
            yield data[_PREFIX_BYTES:end]
            data = data[end:]
        if data:
            self._parts[stream] = data

    def _note(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._send()
        elif kind == _GOAWAY:
            raise ConnectionError(f"the server said goodbye: {payload[8:]!r}")

    def _send(self) -> None:
        while self._unsent and len(self._unsent[0][1]) <= self._window:
            stream, data = self._unsent.pop(0)
            self._window -= len(data)
            self.socket.sendall(_frame(_DATA, _END_STREAM, stream, data))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A short string of HPACK without Huffman code."""
    assert len(text) < 127, f"too long for one byte of length: {text}"
    return bytes((len(text),)) + text.encode()
