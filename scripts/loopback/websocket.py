"""OpenAI Responses over a WebSocket: the provider's side, and a client written by hand.

A turn is a frame with the body of a POST. The connection keeps the items of its newest response,
and no other: a turn that goes on from it brings only what is new, and is judged as what it stands
for, by the same rules and the same window as a POST with all of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import generate_accept_token

from . import rules_responses
from .client import Connection
from .http1 import Closed, Wire

Json = dict[str, Any]

_DEFLATE = PerMessageDeflate.name
_NOT_OF_A_POST = ("type", "generate", "previous_response_id")


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a turn: the events of its answer, or a refusal as a POST would get it."""

    events: Sequence[Json] = ()
    status: int = 200
    refusal: Json | None = None


@dataclass
class Line:
    """What one connection keeps: its newest response, and the items that go with it.

    `came` and `sent` are all messages, just as they are. With `hangs_up` it is closed behind an
    error.
    """

    response: str = ""
    items: list[Json] = field(default_factory=list)
    came: list[str | bytes] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    hangs_up: bool = False


Take = Callable[[Wire, Json], Turn]
"""Judges a turn by the body of the POST that it stands for."""

May = Callable[[int], Awaitable[None]]


class End:
    """One end of a connection, behind the handshake: bytes to whole messages and back."""

    def __init__(self, kind: ConnectionType, deflate: PerMessageDeflate | None) -> None:
        self._protocol = Protocol(kind, [deflate] if deflate else [])
        self._pieces: list[str | bytes] = []

    def fed(self, data: bytes) -> Iterator[Event]:
        """What these bytes bring to an end."""
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if not isinstance(event, Message):
                yield event
                continue
            self._pieces.append(event.data)
            if event.message_finished:
                whole = event.data[:0].join(self._pieces)
                self._pieces.clear()
                yield TextMessage(whole) if isinstance(whole, str) else BytesMessage(whole)

    def bytes_of(self, event: Event) -> bytes:
        """What goes on the wire."""
        return self._protocol.send(event)


def is_upgrade(wire: Wire) -> bool:
    """Whether a request asks for a WebSocket to Responses."""
    path = wire.path.endswith(rules_responses.PATH)
    return wire.method == "GET" and path and wire.header("upgrade").lower() == "websocket"


async def serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    wire: Wire,
    line: Line,
    take: Take,
    may: May,
) -> None:
    """Take the turns of one connection until the client closes it.

    Args:
        reader: what comes.
        writer: what goes.
        wire: the request that opened it.
        line: what the connection keeps.
        take: judges turns.
        may: waited for before a message goes, with how many of the answer went before.

    Raises:
        Closed: it has.
    """
    deflate = PerMessageDeflate()
    offered = wire.header("sec-websocket-extensions")
    accepted = deflate.accept(offered) if offered.startswith(_DEFLATE) else None
    writer.write(_switching(wire, accepted))
    end = End(ConnectionType.SERVER, deflate if accepted is not None else None)
    while data := await reader.read(65_536):
        for event in end.fed(data):
            if isinstance(event, CloseConnection | Ping):
                writer.write(end.bytes_of(event.response()))
            if isinstance(event, CloseConnection):
                await writer.drain()
                raise Closed
            if isinstance(event, TextMessage | BytesMessage):
                frame = event.data if isinstance(event, TextMessage) else bytes(event.data)
                line.came.append(frame)
                for number, said in enumerate(answered(wire, frame, line, take)):
                    await may(number)
                    line.sent.append(json.dumps(said))
                    over = line.hangs_up and said["type"] == "error"
                    sent = end.bytes_of(TextMessage(line.sent[-1]))
                    # In one piece: whoever reads the one has the other.
                    writer.write(sent + (end.bytes_of(CloseConnection(1011)) if over else b""))
                    await writer.drain()
                    if over:
                        raise Closed
    raise Closed


def _switching(wire: Wire, extension: str | bool | None) -> bytes:
    token = generate_accept_token(wire.header("sec-websocket-key").encode())
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {token.decode()}")
    if extension is not None:
        said = f"; {extension}" if isinstance(extension, str) and extension else ""
        lines.append(f"Sec-WebSocket-Extensions: {_DEFLATE}{said}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answered(wire: Wire, text: str | bytes, line: Line, take: Take) -> Iterator[Json]:
    """The events that answer one frame."""
    try:
        frame = json.loads(text)
        kind = frame["type"]
    except (ValueError, TypeError, KeyError):
        said = "We could not parse the JSON body of your request."
        yield _error(400, {"message": said, "code": "invalid_json"})
        return
    if kind == "response.processed":
        return
    if kind != "response.create":
        said = f"Invalid value: '{kind}'. Supported values are: 'response.create'."
        yield _error(400, {"message": said, "param": "type", "code": "invalid_value"})
        return
    previous = frame.get("previous_response_id")
    if previous is not None and previous != line.response:
        yield _error(400, _not_found(previous))
        return
    body = {key: value for key, value in frame.items() if key not in _NOT_OF_A_POST}
    if not isinstance(frame.get("input"), str | list):
        said = "Invalid type for 'input': expected a string or an array."
        yield _error(400, {"message": said, "param": "input", "code": "invalid_type"})
        return
    new = rules_responses.items_of(frame)
    body |= {"input": [*(line.items if previous else []), *new], "stream": True}
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    turn = take(replace(wire, raw_body=content, body=content), body)
    if turn.refusal is not None:
        if previous:
            # What a turn that failed goes on from is not kept any longer.
            line.response, line.items = "", []
        yield _error(turn.status, turn.refusal["error"])
        return
    for event in turn.events if frame.get("generate") is not False else _warmed(turn.events):
        if "response" in event:
            event["response"]["previous_response_id"] = previous
        if event["type"] == "response.completed":
            line.response = event["response"]["id"]
            line.items = [*body["input"], *event["response"]["output"]]
        yield event


def _warmed(events: Sequence[Json]) -> Iterator[Json]:
    """The answer to a turn that asks for none."""
    for event in (events[0], events[-1]):
        yield {**event, "response": {**event["response"], "output": []}}


def warm_up(number: int, body: Json) -> Turn:
    """The answer to a turn without any item."""
    usage: Json = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    response: Json = {"id": f"resp_{number:08d}", "object": "response", "model": body.get("model")}
    begun = {**response, "status": "in_progress", "output": []}
    done = {**response, "status": "completed", "output": [], "usage": usage}
    return Turn(
        [
            {"type": "response.created", "response": begun},
            {"type": "response.completed", "response": done},
        ]
    )


def _error(status: int, error: Json) -> Json:
    told = {"type": "invalid_request_error", "param": None, "code": None, **error}
    return {"type": "error", "status": status, "error": told}


def _not_found(previous: str) -> Json:
    return {
        "message": f"Previous response with id '{previous}' not found.",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }


class Socket:
    """A client's end, on a connection through a proxy. `status` is 101 where it was let in."""

    def __init__(
        self,
        connection: Connection,
        path: str = "/v1/responses",
        headers: Sequence[tuple[str, str]] = (("authorization", "Bearer k"),),
        *,
        deflated: bool = True,
    ) -> None:
        self._socket = connection.socket
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {connection.host}", "Connection: Upgrade"]
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        if deflated:
            lines.append(f"Sec-WebSocket-Extensions: {_DEFLATE}; client_max_window_bits")
        lines += [f"{name}: {value}" for name, value in headers]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.head = self._head()
        self.status = int(self.head[0].split(" ")[1])
        deflate = None
        for line in self.head:
            if _DEFLATE in line:
                deflate = PerMessageDeflate()
                deflate.finalize(line.partition(": ")[2])
        self._end = End(ConnectionType.CLIENT, deflate)
        self._came: list[Event] = []

    def _head(self) -> list[str]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self._socket.recv(1)
            if not piece:
                raise ConnectionError(head.decode("latin-1"))
            head += piece
        return head.decode("latin-1").split("\r\n")

    def send(self, *messages: str | bytes) -> None:
        """Send each message in one frame, text or not, all at once."""
        self._socket.sendall(b"".join(self._end.bytes_of(_event(one)) for one in messages))

    def receive(self) -> str:
        """The next message.

        Raises:
            ConnectionError: there is none any more.
        """
        while not self._came:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the connection ended")
            self._came += self._end.fed(data)
        event = self._came.pop(0)
        if not isinstance(event, TextMessage):
            raise ConnectionError(f"no text came, but {event}")
        return str(event.data)

    def turn(self, *frames: str | bytes) -> list[str]:
        """Send turns all at once; the messages up to the end of the last one's answer."""
        self.send(*frames)
        came: list[str] = []
        for _ in frames:
            came.append(self.receive())
            while json.loads(came[-1])["type"] not in ("response.completed", "error"):
                came.append(self.receive())
        return came

    def close(self) -> None:
        """Say goodbye."""
        self._socket.sendall(self._end.bytes_of(CloseConnection(code=1000)))


def _event(message: str | bytes) -> Event:
    return TextMessage(message) if isinstance(message, str) else BytesMessage(message)
