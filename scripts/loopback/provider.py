"""The server: takes requests off the wire, judges, counts, records and answers.

It runs on a thread with a loop of its own, so that synchronous and asynchronous callers use it
alike:

    with serving(Provider(), certificates) as provider:
        ...  # https://localhost:<provider.tls_port>
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs

from . import (
    answers,
    http1,
    rules_anthropic,
    rules_bedrock,
    rules_cohere,
    rules_gemini,
    rules_ollama,
    rules_openai,
    rules_responses,
    websocket,
)
from .answers import Reply, Usage
from .caching import PromptCache
from .certificates import Certificates
from .codings import CODINGS, Undecodable, decode, encode, encoder
from .counting import MODELS, Model, count, model_named, weigh
from .http1 import Closed, Wire, chunk_of, head_of, last_chunk, read_request
from .prefix import fingerprints, first_difference
from .refusal import Refusal
from .speaking import Said, Speaking
from .summariser import Summariser

HOSTS = (
    "api.anthropic.com",
    "api.openai.com",
    "chatgpt.com",
    "ollama.com",
    "api.cohere.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "us-east5-aiplatform.googleapis.com",
    "generativelanguage.googleapis.com",
    "us-central1-aiplatform.googleapis.com",
    "cloudcode-pa.googleapis.com",
)
SPEAKING: tuple[Speaking, ...] = (
    rules_ollama.SPEAKING,
    rules_responses.SPEAKING,
    rules_cohere.SPEAKING,
    rules_bedrock.CONVERSE,
    rules_bedrock.INVOKE,
    rules_bedrock.VERTEX,
    rules_gemini.SPEAKING,
)
_LARGEST_LINE = 64 * 1024 * 1024
_LOOKS_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How answers are sent.

    `encoding` is a content-encoding, or "accept" for the first that the client offers. `gap` is
    the pause between two events of a stream in seconds, `split` cuts what is sent into pieces of
    so many bytes, and `chunked` sends plain answers in chunks too. Behind the last chunk comes
    `trailer`, a header line. With `hangs_up` a WebSocket is closed right behind a refusal. No
    answer begins before `may`; one on a WebSocket does not go on behind `held_from` messages.
    """

    encoding: str = ""
    gap: float = 0.0
    split: int = 0
    chunked: bool = False
    trailer: str = ""
    hangs_up: bool = False
    may: Callable[[], bool] = lambda: True
    held_from: int = 0


@dataclass
class Record:
    """One request as it came, and what became of it.

    `broke` is the first message of the account's last accepted request that is missing here.
    `sent` holds the body bytes of the answer as they were written, each with its time.
    """

    number: int
    api: str
    key: str
    wire: Wire
    body: Any = None
    status: int = 200
    refusal: Refusal | None = None
    tokens: int = 0
    usage: Usage | None = None
    broke: int | None = None
    sent: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def answer(self) -> bytes:
        """The body of the answer as it was sent, still encoded."""
        return b"".join(data for _, data in self.sent)


@dataclass
class Account:
    """What the provider keeps for one key."""

    anthropic: rules_anthropic.Memory
    openai: rules_openai.Memory = field(default_factory=rules_openai.Memory)
    cache: PromptCache = field(default_factory=PromptCache)
    last: list[bytes] = field(default_factory=list)
    memories: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status, headers and either one body or the events of a stream."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    events: Iterable[bytes] | None = None


class Provider:
    """All providers in one server; the path says which one is meant.

    `replies` are said in their order, then `default` for ever. Of `records` the newest `keep`
    are kept; `number`, `accepted`, `refused` and `breaks`
    count all of them. Questions to the `summariser` are kept apart from them, in `questions`.
    """

    def __init__(
        self,
        models: Sequence[Model] = MODELS,
        *,
        behaviour: Behaviour | None = None,
        default: Reply | None = None,
        keep: int | None = None,
        summariser: Summariser | None = None,
    ) -> None:
        self.models = tuple(models)
        self.behaviour = behaviour or Behaviour()
        self.default = default or Reply()
        self.replies: deque[Reply] = deque()
        self.summariser = summariser
        self.questions: deque[Record] = deque(maxlen=keep)
        self.records: deque[Record] = deque(maxlen=keep)
        self.accounts: dict[str, Account] = {}
        self.accepted = 0
        self.refused: list[tuple[int, Refusal]] = []
        self.breaks: list[int] = []
        self.tls_port = 0
        self.plain_port = 0
        self.number = 0
        self.lines: list[websocket.Line] = []
        self._connections: set[asyncio.Task[None]] = set()

    def forget(self) -> None:
        """Be as new, but for the ports and whoever is connected."""
        stays = ("tls_port", "plain_port", "_connections")
        vars(self).update({k: v for k, v in vars(Provider()).items() if k not in stays})

    def account(self, key: str) -> Account:
        """What is known of the holder of a key."""
        if key not in self.accounts:
            self.accounts[key] = Account(rules_anthropic.Memory(key.encode()))
        return self.accounts[key]

    def requests(self, api: str = "") -> list[Record]:
        """The kept records, of one API if it is named."""
        return [record for record in list(self.records) if api in ("", record.api)]

    # One request.

    def handle(self, wire: Wire) -> tuple[Record, Answer]:
        """Judge a request, record it and say what the answer is."""
        asked = self._is_question(wire)
        self.number += not asked
        number = 1_000_000 + len(self.questions) if asked else self.number
        record = Record(number, _api_of(wire), _key_of(wire), wire)
        (self.questions if asked else self.records).append(record)
        answer = self._judge(record)
        record.status = answer.status
        return record, answer

    def _is_question(self, wire: Wire) -> bool:
        return self.summariser is not None and self.summariser.is_asked(wire.body)

    def _reply(self, record: Record) -> Reply:
        if self.summariser is not None and self._is_question(record.wire):
            self.summariser.bodies.append(record.wire.body)
            return self.summariser.reply(record.wire.body)
        return self.replies.popleft() if self.replies else self.default

    def _judge(self, record: Record) -> Answer:
        if not record.api or record.wire.method != "POST":
            return self._refuse(record, Refusal("Not Found", 404, "not_found_error"))
        speaking = _speaking(record)
        if not record.key and (speaking is None or speaking.needs_key):
            message = (
                "x-api-key header is required"
                if record.api.startswith("anthropic")
                else "You didn't provide an API key."
            )
            return self._refuse(record, Refusal(message, 401, "authentication_error"))
        try:
            record.body = _parse(record.wire)
        except (ValueError, RecursionError, Undecodable):
            return self._refuse(record, Refusal("The request body is not valid JSON"))
        if speaking is not None:
            return self._speak(record, speaking)
        if record.api == "anthropic.count_tokens":
            return self._count(record)
        return self._converse(record)

    def take(self, wire: Wire, body: Any) -> websocket.Turn:
        """Judge a turn that came over a WebSocket by the body of the POST that it stands for."""
        self.number += 1
        speaking = rules_responses.SPEAKING
        record = Record(self.number, speaking.name, _key_of(wire), wire, body)
        self.records.append(record)
        if not body["input"]:
            return websocket.warm_up(record.number, body)
        answer = self._speak(record, speaking)
        record.status = answer.status
        if answer.events is None:
            return websocket.Turn((), answer.status, json.loads(answer.body))
        return websocket.Turn([json.loads(one.partition(b"data: ")[2]) for one in answer.events])

    def _model(self, body: Any) -> Model:
        name = body.get("model") if isinstance(body, dict) else None
        return model_named(name if isinstance(name, str) else "", self.models)

    def _count(self, record: Record) -> Answer:
        memory = self.account(record.key).anthropic
        betas = _betas_of(record.wire)
        refusal = rules_anthropic.check(record.body, memory, betas=betas, counting=True)
        if refusal is not None:
            return self._refuse(record, refusal)
        record.tokens = count(record.body, self._model(record.body))
        return _json(200, {"input_tokens": record.tokens})

    def _converse(self, record: Record) -> Answer:
        account, model = self.account(record.key), self._model(record.body)
        reply = self._reply(record)
        if reply.status != 200:
            refusal = Refusal("Overloaded", reply.status, "overloaded_error")
            return self._refuse(record, refusal, reply.error)
        if record.api == "anthropic":
            betas = _betas_of(record.wire)
            refused = rules_anthropic.check(
                record.body, account.anthropic, betas=betas, model=model
            )
        else:
            refused = rules_openai.check(record.body, account.openai, model=model)
        if refused is not None:
            return self._refuse(record, refused)
        self.accepted += 1
        self._watch(record, account)
        record.tokens = count(record.body, model)
        if record.api == "anthropic":
            return self._anthropic(record, account, model, reply)
        return self._openai(record, account, model, reply)

    def _speak(self, record: Record, speaking: Speaking) -> Answer:
        """A request of an API that stands in `SPEAKING`."""
        wire, account = record.wire, self.account(record.key)
        memory = account.memories.setdefault(speaking.name, speaking.memory(record.key.encode()))
        name = speaking.model(wire, record.body) if isinstance(record.body, dict) else ""
        model = model_named(name, self.models)
        counting = speaking.counts(wire)
        reply = Reply()
        if not counting:
            reply = self._reply(record)
        if reply.status != 200:
            refusal = Refusal("Overloaded", reply.status, "overloaded_error")
            return self._refuse(record, refusal, reply.error)
        refused = speaking.check(record.body, memory, wire, model)
        if refused is not None:
            return self._refuse(record, refused)
        # What stands before the messages and they themselves, in the form that is counted.
        told = {**speaking.head(record.body), "messages": speaking.history(record.body)}
        record.tokens = count(told, model)
        if counting:
            return _json(200, speaking.counted(record.tokens))
        self.accepted += 1
        self._watch(record, account, told)
        record.usage = usage = Usage(*account.cache.openai(told, model), output=_output(reply))
        said = speaking.answer(wire, record.body, record.number, reply, usage, memory)
        return _said(said)

    def _watch(self, record: Record, account: Account, told: Any = None) -> None:
        """Note whether this request still begins with the account's last one.

        `told` is its form with `messages`, where the API has another one.
        """
        if self._is_question(record.wire):
            return
        now = fingerprints(told or record.body)
        record.broke = first_difference(account.last, now)
        account.last = now
        if record.broke is not None:
            self.breaks.append(record.number)

    def _anthropic(self, record: Record, account: Account, model: Model, reply: Reply) -> Answer:
        body, number = record.body, record.number
        signature = account.anthropic.sign(reply.thinking) if reply.thinking else ""
        content = answers.anthropic_content(reply, number, signature)
        for block in content:
            if block["type"] == "tool_use" and signature:
                account.anthropic.signatures_beside[block["id"]] = (signature,)
        usage = Usage(*account.cache.anthropic(body, model), output=_output(reply))
        record.usage = usage
        if body.get("stream"):
            return _stream(answers.anthropic_events(body["model"], number, content, reply, usage))
        return _json(200, answers.anthropic_message(body["model"], number, content, reply, usage))

    def _openai(self, record: Record, account: Account, model: Model, reply: Reply) -> Answer:
        body, number = record.body, record.number
        usage = Usage(*account.cache.openai(body, model), output=_output(reply))
        record.usage = usage
        if body.get("stream"):
            wanted = bool((body.get("stream_options") or {}).get("include_usage"))
            return _stream(
                answers.openai_events(body["model"], number, reply, usage, include_usage=wanted)
            )
        return _json(200, answers.openai_completion(body["model"], number, reply, usage))

    def _refuse(
        self, record: Record, refusal: Refusal, error: dict[str, Any] | None = None
    ) -> Answer:
        record.refusal = refusal
        self.refused.append((record.number, refusal))
        if error is not None:
            return _json(refusal.status, error)
        if (speaking := _speaking(record)) is not None:
            return _json(refusal.status, speaking.say(refusal, record.number))
        if record.api == "openai":
            return _json(refusal.status, rules_openai.say(refusal))
        return _json(refusal.status, rules_anthropic.say(refusal, f"req_{record.number:08d}"))

    # The wire.

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection for as long as the client keeps it."""
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        with contextlib.suppress(Closed, OSError, asyncio.CancelledError):
            while True:
                wire = await read_request(reader)
                if websocket.is_upgrade(wire):
                    self.lines.append(websocket.Line(hangs_up=self.behaviour.hangs_up))
                    line = self.lines[-1]
                    await websocket.serve(reader, writer, wire, line, self.take, self._may)
                record, answer = self.handle(wire)
                if await self._sent_oddly(writer, wire):
                    break
                await self._send(writer, record, answer)
                if wire.header("connection").lower() == "close":
                    break
        writer.close()

    async def _sent_oddly(self, writer: asyncio.StreamWriter, wire: Wire) -> bool:
        """Take the summariser's time over a question; whether it was answered in its own way."""
        summariser = self.summariser
        if summariser is None or not self._is_question(wire):
            return False
        await asyncio.sleep(summariser.delay)
        if summariser.sends is None:
            return False
        await summariser.sends(writer)
        return True

    async def _send(self, writer: asyncio.StreamWriter, record: Record, answer: Answer) -> None:
        behaviour = self.behaviour
        await self._may(0)
        coding = _coding(behaviour.encoding, record.wire)
        headers = [*answer.headers, ("request-id", f"req_{record.number:08d}")]
        if coding:
            headers.append(("content-encoding", coding))
        if answer.events is None and not behaviour.chunked:
            body = encode(answer.body, coding)
            headers.append(("content-length", str(len(body))))
            record.sent.append((time.monotonic(), body))
            writer.write(head_of(answer.status, headers) + body)
            await writer.drain()
            return
        headers.append(("transfer-encoding", "chunked"))
        writer.write(head_of(answer.status, headers))
        await self._send_pieces(writer, record, answer, coding)

    async def _may(self, number: int) -> None:
        """Wait until the n-th piece of an answer may go: one from `held_from` on."""
        behaviour = self.behaviour
        while number >= behaviour.held_from and not behaviour.may():  # noqa: ASYNC110 - set by files
            await asyncio.sleep(_LOOKS_SECONDS)

    async def _send_pieces(
        self, writer: asyncio.StreamWriter, record: Record, answer: Answer, coding: str
    ) -> None:
        step, end = encoder(coding)
        events = [answer.body] if answer.events is None else answer.events
        for number, event in enumerate(events):
            if number and self.behaviour.gap:
                await asyncio.sleep(self.behaviour.gap)
            await self._send_piece(writer, record, step(event))
        await self._send_piece(writer, record, end())
        writer.write(last_chunk(self.behaviour.trailer))
        await writer.drain()

    async def _send_piece(self, writer: asyncio.StreamWriter, record: Record, data: bytes) -> None:
        size = self.behaviour.split or len(data) or 1
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            record.sent.append((time.monotonic(), piece))
            writer.write(chunk_of(piece))
            await writer.drain()

    async def listen(self, certificates: Certificates | None) -> list[asyncio.Server]:
        """Open a plain port and, with certificates, one with TLS."""
        plain = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=_LARGEST_LINE)
        self.plain_port = plain.sockets[0].getsockname()[1]
        if certificates is None:
            return [plain]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.chain, certificates.key)
        context.set_alpn_protocols(["http/1.1"])
        secure = await asyncio.start_server(
            self.connection, "127.0.0.1", 0, limit=_LARGEST_LINE, ssl=context
        )
        self.tls_port = secure.sockets[0].getsockname()[1]
        return [plain, secure]

    async def serve(
        self,
        certificates: Certificates | None,
        ready: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        """Listen until told to stop."""
        servers = await self.listen(certificates)
        ready()
        await stop.wait()
        for server in servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@contextlib.contextmanager
def serving(provider: Provider, certificates: Certificates | None = None) -> Iterator[Provider]:
    """Run a provider on a thread of its own for as long as the block lasts."""
    started = threading.Event()
    control: dict[str, Any] = {}

    async def run() -> None:
        control["loop"], control["stop"] = asyncio.get_running_loop(), asyncio.Event()
        await provider.serve(certificates, started.set, control["stop"])

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="loopback", daemon=True)
    thread.start()
    if not started.wait(30):
        raise RuntimeError("the loopback provider did not start")
    try:
        yield provider
    finally:
        control["loop"].call_soon_threadsafe(control["stop"].set)
        thread.join(10)


def with_windows(windows: dict[str, int], models: Sequence[Model] = MODELS) -> tuple[Model, ...]:
    """The same families with other windows, by patterns of their names."""
    return tuple(
        replace(model, window=_window(model, windows), counts_output=False)
        if _window(model, windows) != model.window
        else model
        for model in models
    )


def _window(model: Model, windows: dict[str, int]) -> int:
    for pattern, window in windows.items():
        if fnmatchcase(model.pattern.rstrip("*"), pattern):
            return window
    return model.window


# Reading a request.


def _api_of(wire: Wire) -> str:
    for speaking in SPEAKING:
        if speaking.recognises(wire):
            return speaking.name
    if wire.path.endswith("/v1/messages/count_tokens"):
        return "anthropic.count_tokens"
    if wire.path.endswith("/v1/messages"):
        return "anthropic"
    return "openai" if wire.path.endswith("/chat/completions") else ""


def _speaking(record: Record) -> Speaking | None:
    return next((one for one in SPEAKING if one.name == record.api), None)


def _key_of(wire: Wire) -> str:
    headers = ("x-api-key", "api-key", "x-goog-api-key")
    named = next((wire.header(name) for name in headers if wire.header(name)), "")
    named = named or wire.header("authorization").removeprefix("Bearer ")
    return named or parse_qs(wire.target.partition("?")[2]).get("key", [""])[0]


def _betas_of(wire: Wire) -> frozenset[str]:
    return frozenset(name.strip() for name in wire.header("anthropic-beta").split(",")) - {""}


def _parse(wire: Wire) -> Any:
    text = decode(wire.body, wire.header("content-encoding").lower()).decode("utf-8")
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(name)


# Writing an answer.


def _json(status: int, value: Any) -> Answer:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Answer(status, [("content-type", "application/json")], body)


def _said(said: Said) -> Answer:
    if said.pieces is None:
        return _json(200, said.value)
    headers = [("content-type", said.content_type), ("cache-control", "no-cache")]
    return Answer(200, headers, events=said.pieces)


def _stream(events: Iterable[bytes]) -> Answer:
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
    return Answer(200, headers, events=events)


def _coding(wanted: str, wire: Wire) -> str:
    if wanted != "accept":
        return wanted
    offered = [name.strip() for name in wire.header("accept-encoding").split(",")]
    return next((name for name in offered if name in CODINGS), "")


def _output(reply: Reply) -> int:
    text = reply.text + reply.thinking + "".join(json.dumps(c.arguments) for c in reply.calls)
    return max(1, round(weigh(text)))


__all__ = ["HOSTS", "Behaviour", "Provider", "Record", "http1", "serving", "with_windows"]
