"""What api.anthropic.com refuses, and in which words.

Every rule is a generator of complaints and the first complaint is the answer, so a new rule is
one more function in `RULES`. The first group says what JSON is taken at all, the second what a
history must look like. Nothing here does any input or output.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .counting import MODELS, Model, count, model_named
from .refusal import Refusal, names

Body = dict[str, Any]
Block = dict[str, Any]

MOST_MARKERS = 4
EXTRA = "Extra inputs are not permitted"
REQUIRED = "Field required"

_TOP = names(
    "cache_control container context_management diagnostics inference_geo max_tokens mcp_servers"
    " messages metadata model output_config output_format service_tier speed stop_sequences stream"
    " system temperature thinking tool_choice tools top_k top_p"
)
_TOP_COUNT = names(
    "cache_control context_management mcp_servers messages model output_config output_format"
    " speed system thinking tool_choice tools"
)
_BETA_TOP = {"context_management", "diagnostics", "mcp_servers", "speed"}

_TOP_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "Input should be a valid string"),
    "max_tokens": ((int,), "Input should be a valid integer"),
    "messages": ((list,), "Input should be a valid list"),
    "metadata": ((dict,), "Input should be an object"),
    "stop_sequences": ((list,), "Input should be a valid list"),
    "stream": ((bool,), "Input should be a valid boolean"),
    "system": ((str, list), "Input should be a valid list"),
    "temperature": ((int, float), "Input should be a valid number"),
    "thinking": ((dict,), "Input should be an object"),
    "tool_choice": ((dict,), "Input should be an object"),
    "tools": ((list,), "Input should be a valid list"),
    "top_k": ((int,), "Input should be a valid integer"),
    "top_p": ((int, float), "Input should be a valid number"),
}

# Per type of block: what it must have, what it may have beside that.
_BLOCKS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "text": (frozenset({"text"}), frozenset({"cache_control", "citations"})),
    "image": (frozenset({"source"}), frozenset({"cache_control"})),
    "document": (
        frozenset({"source"}),
        frozenset({"cache_control", "citations", "context", "title"}),
    ),
    "search_result": (
        frozenset({"source", "title", "content"}),
        frozenset({"cache_control", "citations"}),
    ),
    "thinking": (frozenset({"thinking", "signature"}), frozenset()),
    "redacted_thinking": (frozenset({"data"}), frozenset()),
    "tool_use": (frozenset({"id", "name", "input"}), frozenset({"cache_control", "caller"})),
    "tool_result": (
        frozenset({"tool_use_id"}),
        frozenset({"content", "is_error", "cache_control"}),
    ),
    "server_tool_use": (frozenset({"id", "name", "input"}), frozenset({"cache_control", "caller"})),
    "web_search_tool_result": (
        frozenset({"tool_use_id", "content"}),
        frozenset({"cache_control", "caller"}),
    ),
    "container_upload": (frozenset({"file_id"}), frozenset({"cache_control"})),
    "compaction": (frozenset({"content"}), frozenset({"cache_control"})),
}
_IN_RESULT = frozenset({"text", "image", "document", "search_result"})
_ASSISTANT_ONLY = frozenset({"tool_use", "thinking", "redacted_thinking", "server_tool_use"})
_MESSAGE_KEYS = frozenset({"role", "content"})
_SYSTEM_MESSAGE_KEYS = _MESSAGE_KEYS | {"output_config"}
_TEXTS = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")


@dataclass
class Memory:
    """What a provider knows of one account: the thinking that it wrote.

    A signature is genuine if this provider issued it or if it was seen with the same text before;
    one never seen is taken as genuine and learned, so that recorded conversations can be played.
    """

    key: bytes = b"loopback"
    text_under: dict[str, str] = field(default_factory=dict)
    signatures_beside: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def sign(self, text: str) -> str:
        """Issue the signature of a thinking text."""
        digest = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha512)
        signature = base64.b64encode(digest.digest()).decode()
        self.text_under[signature] = text
        return signature

    def learn(self, groups: list[Group]) -> None:
        """Remember the thinking of an accepted request and the calls that it stood beside."""
        for group in groups:
            signatures = group.signatures()
            if not signatures:
                continue
            for _, _, block in group.blocks:
                if block["type"] == "thinking":
                    self.text_under.setdefault(block["signature"], block["thinking"])
                if block["type"] == "tool_use":
                    self.signatures_beside.setdefault(block["id"], signatures)


@dataclass
class Group:
    """Neighbouring messages of one role, which the provider takes for one message."""

    role: str
    index: int
    blocks: list[tuple[int, int, Block]] = field(default_factory=list)

    def ids(self, kind: str) -> list[str]:
        """The ids of the calls or of the results in this message, in their order."""
        key = "id" if kind == "tool_use" else "tool_use_id"
        return [block[key] for _, _, block in self.blocks if block["type"] == kind]

    def signatures(self) -> tuple[str, ...]:
        """The signatures of the thinking in this message, in their order."""
        return tuple(
            block.get("signature") or block.get("data", "")
            for _, _, block in self.blocks
            if block["type"] in ("thinking", "redacted_thinking")
        )


@dataclass(frozen=True)
class View:
    """A request as the rules see it."""

    body: Body
    memory: Memory
    betas: frozenset[str]
    counting: bool

    @property
    def messages(self) -> list[Any]:
        """The messages, once their shape was found good."""
        messages: list[Any] = self.body["messages"]
        return messages

    def allows_system_messages(self) -> bool:
        """Whether a beta header lets the role `system` into the messages."""
        return any(beta.startswith("mid-conversation-system") for beta in self.betas)


Rule = Callable[[View], Iterator[str]]


def blocks_of(content: Any) -> list[Block]:
    """The blocks of a content; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content) if isinstance(content, list) else []


def groups_of(messages: list[Body]) -> list[Group]:
    """The messages with neighbours of one role joined. Messages of role system stand aside."""
    groups: list[Group] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        if not groups or groups[-1].role != message["role"]:
            groups.append(Group(message["role"], index))
        found = enumerate(blocks_of(message["content"]))
        groups[-1].blocks.extend((index, number, block) for number, block in found)
    return groups


# What JSON is taken at all.


def top_level(view: View) -> Iterator[str]:
    """Only known keys, of their types, and those that must be there."""
    known = _TOP_COUNT if view.counting else _TOP
    for key, value in view.body.items():
        if key not in known or (key in _BETA_TOP and not view.betas):
            yield f"{key}: {EXTRA}"
        elif key in _TOP_TYPES and value is not None:
            types, complaint = _TOP_TYPES[key]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                yield f"{key}: {complaint}"
    for key in ("model", "messages") if view.counting else ("model", "messages", "max_tokens"):
        if view.body.get(key) is None:
            yield f"{key}: {REQUIRED}"
    if not view.counting and view.body["max_tokens"] < 1:
        yield "max_tokens: Input should be greater than or equal to 1"


def thinking_budget(view: View) -> Iterator[str]:
    """The budget for thinking is a part of the output."""
    thinking = view.body.get("thinking") or {}
    if thinking.get("type") == "enabled" and not view.counting:
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            yield f"thinking.enabled.budget_tokens: {REQUIRED}"
        elif budget < 1024:
            yield ("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        elif budget >= view.body["max_tokens"]:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`."


def message_shapes(view: View) -> Iterator[str]:
    """Only known roles and keys; content is a string or a list of blocks."""
    if not view.messages:
        yield "messages: at least one message is required"
    for index, message in enumerate(view.messages):
        if not isinstance(message, dict):
            yield f"messages.{index}: Input should be an object"
            return
        yield from _message_shape(view, index, message)


def _message_shape(view: View, index: int, message: Body) -> Iterator[str]:
    where = f"messages.{index}"
    if "role" not in message:
        yield f"{where}.role: {REQUIRED}"
    elif message["role"] == "system" and not view.allows_system_messages():
        yield (
            'messages: Unexpected role "system". The Messages API accepts a top-level `system`'
            ' parameter, not "system" as an input message role.'
        )
    elif message["role"] not in ("user", "assistant", "system"):
        yield (
            f"messages: Unexpected role {message['role']!r}."
            ' Allowed roles are "user" or "assistant"'
        )
    allowed = _SYSTEM_MESSAGE_KEYS if message.get("role") == "system" else _MESSAGE_KEYS
    for key in message:
        if key not in allowed:
            yield f"{where}.{key}: {EXTRA}"
    if "content" not in message:
        yield f"{where}.content: {REQUIRED}"
    elif not isinstance(message["content"], str | list):
        yield f"{where}.content: Input should be a valid string"


def block_shapes(view: View) -> Iterator[str]:
    """Every block of a known type, with its keys, nothing else, and where it may stand."""
    for index, message in enumerate(view.messages):
        if isinstance(message["content"], list):
            for number, block in enumerate(message["content"]):
                where = f"messages.{index}.content.{number}"
                yield from _block_shape(where, block, frozenset(_BLOCKS))
                yield from _block_place(where, message["role"], block)
    if isinstance(view.body.get("system"), list):
        for number, block in enumerate(view.body["system"]):
            yield from _block_shape(f"system.{number}", block, frozenset({"text"}))


def _block_shape(where: str, block: Any, types: frozenset[str]) -> Iterator[str]:
    if not isinstance(block, dict):
        yield f"{where}: Input should be a valid dictionary or object to extract fields from"
        return
    kind = block.get("type")
    if kind is None:
        yield f"{where}.type: {REQUIRED}"
    if not isinstance(kind, str) or kind not in types:
        expected = ", ".join(f"'{name}'" for name in sorted(types))
        yield (
            f"{where}: Input tag {kind!r} found using 'type' does not match any of the expected"
            f" tags: {expected}"
        )
        return
    needed, possible = _BLOCKS[kind]
    for key in needed:
        if key not in block:
            yield f"{where}.{kind}.{key}: {REQUIRED}"
    for key in block:
        if key != "type" and key not in needed and key not in possible:
            yield f"{where}.{kind}.{key}: {EXTRA}"
    yield from _block_values(f"{where}.{kind}", block)


def _block_values(where: str, block: Block) -> Iterator[str]:
    for key in _TEXTS.get(block["type"], ()):
        if not isinstance(block[key], str):
            yield f"{where}.{key}: Input should be a valid string"
    for key in ("id", "tool_use_id"):
        if isinstance(block.get(key), str) and not _ID.fullmatch(block[key]):
            yield f"{where}.{key}: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if block["type"] in ("tool_use", "server_tool_use") and not isinstance(block["input"], dict):
        yield f"{where}.input: Input should be a valid dictionary"
    marker = block.get("cache_control")
    if marker is not None:
        yield from _marker_shape(f"{where}.cache_control", marker)
    if block["type"] == "tool_result":
        yield from _result_shape(where, block)


def _result_shape(where: str, block: Block) -> Iterator[str]:
    content = block.get("content")
    if not isinstance(block.get("is_error"), bool | None):
        yield f"{where}.is_error: Input should be a valid boolean"
    if content is not None and not isinstance(content, str | list):
        yield f"{where}.content: Input should be a valid string"
    if isinstance(content, list):
        for number, inner in enumerate(content):
            yield from _block_shape(f"{where}.content.{number}", inner, _IN_RESULT)


def _marker_shape(where: str, marker: Any) -> Iterator[str]:
    if not isinstance(marker, dict):
        yield f"{where}: Input should be an object"
    elif marker.get("type") != "ephemeral":
        yield f"{where}: Input tag {marker.get('type')!r} found using 'type' does not match"
    elif marker.get("ttl", "5m") not in ("5m", "1h"):
        yield f"{where}.ephemeral.ttl: Input should be '5m' or '1h'"


def _block_place(where: str, role: str, block: Block) -> Iterator[str]:
    kind = block["type"]
    if kind in _ASSISTANT_ONLY and role != "assistant":
        yield f"{where}: `{kind}` blocks can only be in `assistant` messages"
    if kind == "tool_result" and role != "user":
        yield f"{where}: `tool_result` blocks can only be in `user` messages"


def tool_shapes(view: View) -> Iterator[str]:
    """A tool of the caller's has a name and a schema; names are unique."""
    taken: set[str] = set()
    for number, tool in enumerate(view.body.get("tools") or []):
        if not isinstance(tool, dict):
            yield f"tools.{number}: Input should be an object"
            return
        if tool.get("type", "custom") != "custom":
            continue
        for key in ("name", "input_schema"):
            if key not in tool:
                yield f"tools.{number}.custom.{key}: {REQUIRED}"
        if not isinstance(tool["name"], str):
            yield f"tools.{number}.custom.name: Input should be a valid string"
        if tool["name"] in taken:
            yield "tools: Tool names must be unique."
        taken.add(tool["name"])


# What a history must look like.


def texts_are_not_empty(view: View) -> Iterator[str]:
    """No empty text block anywhere, and no empty message but a final one of the assistant."""
    last = len(view.messages) - 1
    for index, message in enumerate(view.messages):
        blocks = blocks_of(message["content"])
        if not blocks and not (index == last and message["role"] == "assistant"):
            yield (
                f"messages.{index}: all messages must have non-empty content except for the"
                " optional final assistant message"
            )
        yield from _empty_texts(f"messages.{index}.content", "messages", blocks)
    yield from _empty_texts("system", "system", blocks_of(view.body.get("system")))


def _empty_texts(where: str, whole: str, blocks: list[Block]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result" and isinstance(block.get("content"), list):
            yield from _empty_texts(
                f"{where}.{number}.tool_result.content", whole, block["content"]
            )
        if block["type"] != "text" or block["text"]:
            continue
        if block.get("cache_control"):
            yield (
                f"{where}.{number}.text.cache_control: cache_control cannot be set for empty text"
                " blocks"
            )
        yield f"{whole}: text content blocks must be non-empty"


def texts_are_not_blank(view: View) -> Iterator[str]:
    """White space alone is no text."""
    for message in view.messages:
        for block in blocks_of(message["content"]):
            if block["type"] == "text" and not block["text"].strip():
                yield "messages: text content blocks must contain non-whitespace text"


def first_is_the_users(view: View) -> Iterator[str]:
    """A conversation begins with the user."""
    groups = groups_of(view.messages)
    if not groups or groups[0].role != "user":
        yield 'messages: first message must use the "user" role'


def end_has_no_blanks(view: View) -> Iterator[str]:
    """What the assistant is to continue ends in a visible sign."""
    last = view.messages[-1]
    if last["role"] == "assistant":
        blocks = blocks_of(last["content"])
        if (
            blocks
            and blocks[-1]["type"] == "text"
            and blocks[-1]["text"] != blocks[-1]["text"].rstrip()
        ):
            yield "messages: final assistant content cannot end with trailing whitespace"


def markers(view: View) -> Iterator[str]:
    """At most four `cache_control`, those that live longer first."""
    found = list(_markers(view.body))
    if len(found) > MOST_MARKERS:
        yield (
            f"A maximum of {MOST_MARKERS} blocks with cache_control may be provided."
            f" Found {len(found)}."
        )
    short = False
    for where, marker in found:
        short = short or marker.get("ttl", "5m") == "5m"
        if short and marker.get("ttl") == "1h":
            yield (
                f"{where}.cache_control.ttl: a ttl='1h' cache_control block must not come after a"
                " ttl='5m' cache_control block. Note that blocks are processed in the following"
                " order: `tools`, `system`, `messages`."
            )


def _markers(body: Body) -> Iterator[tuple[str, Block]]:
    for number, tool in enumerate(body.get("tools") or []):
        if tool.get("cache_control"):
            yield f"tools.{number}", tool["cache_control"]
    yield from _markers_in("system", blocks_of(body.get("system")))
    for index, message in enumerate(body.get("messages") or []):
        yield from _markers_in(f"messages.{index}.content", blocks_of(message["content"]))


def _markers_in(where: str, blocks: list[Block]) -> Iterator[tuple[str, Block]]:
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result":
            yield from _markers_in(f"{where}.{number}.content", blocks_of(block.get("content")))
        if block.get("cache_control"):
            yield f"{where}.{number}", block["cache_control"]


def count_markers(body: Body) -> int:
    """How many `cache_control` a request holds, nested ones included."""
    return sum(1 for _ in _markers(body))


def calls_have_results(view: View) -> Iterator[str]:
    """Each call has one result at the head of the next message, and there are no others."""
    groups = groups_of(view.messages)
    seen: set[str] = set()
    for position, group in enumerate(groups):
        called = group.ids("tool_use")
        for call in called:
            if call in seen:
                yield "messages: `tool_use` ids must be unique"
            seen.add(call)
        following = groups[position + 1] if position + 1 < len(groups) else None
        yield from _unanswered(group, called, following)
        before = groups[position - 1].ids("tool_use") if position else []
        yield from _unexpected(group, before)


def _unanswered(group: Group, called: list[str], following: Group | None) -> Iterator[str]:
    answered = _leading_results(following)
    missing = [call for call in called if call not in answered]
    if missing:
        yield (
            f"messages.{group.blocks[-1][0]}: `tool_use` ids were found without `tool_result`"
            f" blocks immediately after: {', '.join(missing)}. Each `tool_use` block must have a"
            " corresponding `tool_result` block in the next message."
        )
    for call in called:
        if answered.count(call) > 1:
            yield (
                f"messages.{group.index}: each tool_use must have a single result. Found multiple"
                f" `tool_result` blocks with id: {call}"
            )


def _leading_results(group: Group | None) -> list[str]:
    """The results before anything else: what stands behind other content answers nothing."""
    found: list[str] = []
    for _, _, block in group.blocks if group else []:
        if block["type"] != "tool_result":
            break
        found.append(block["tool_use_id"])
    return found


def _unexpected(group: Group, called: list[str]) -> Iterator[str]:
    for index, number, block in group.blocks:
        if block["type"] == "tool_result" and block["tool_use_id"] not in called:
            yield (
                f"messages.{index}.content.{number}: unexpected `tool_use_id` found in"
                f" `tool_result` blocks: {block['tool_use_id']}. Each `tool_result` block must"
                " have a corresponding `tool_use` block in the previous message."
            )


def thinking_is_genuine(view: View) -> Iterator[str]:
    """Thinking carries the signature of just this text."""
    groups = groups_of(view.messages)
    latest = _current_turn(groups)
    for position, group in enumerate(groups):
        for index, number, block in group.blocks:
            if block["type"] != "thinking":
                continue
            known = view.memory.text_under.get(block["signature"])
            if known is None or known == block["thinking"]:
                continue
            if position >= latest:
                yield _not_modified(index, number)
            yield f"messages.{index}.content.{number}: Invalid `signature` in `thinking` block"


def thinking_is_complete(view: View) -> Iterator[str]:
    """Since the last turn of the user's, thinking stays beside the calls that it led to."""
    groups = groups_of(view.messages)
    for group in groups[_current_turn(groups) :]:
        for call in group.ids("tool_use"):
            known = view.memory.signatures_beside.get(call)
            if known is None or known == group.signatures():
                continue
            index, number, first = group.blocks[0]
            if first["type"] not in ("thinking", "redacted_thinking"):
                yield (
                    f"messages.{index}.content.{number}.type: Expected `thinking` or"
                    f" `redacted_thinking`, but found `{first['type']}`. When `thinking` is"
                    " enabled, a final `assistant` message must start with a thinking block"
                    " (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We"
                    " recommend you include thinking blocks from previous turns. To avoid this"
                    " requirement, disable `thinking`."
                )
            yield _not_modified(index, number)


def _not_modified(index: int, number: int) -> str:
    return (
        f"messages.{index}.content.{number}: `thinking` or `redacted_thinking` blocks in the"
        " latest assistant message cannot be modified. These blocks must remain as they were in"
        " the original response."
    )


def _current_turn(groups: list[Group]) -> int:
    """Where the current turn begins: behind the last user message without tool results.

    A message that holds a result and a text continues the tool loop, whoever wrote the text.
    """
    for position in range(len(groups) - 1, -1, -1):
        if groups[position].role == "user" and not groups[position].ids("tool_result"):
            return position
    return 0


RULES: tuple[Rule, ...] = (
    top_level,
    thinking_budget,
    message_shapes,
    block_shapes,
    tool_shapes,
    texts_are_not_empty,
    texts_are_not_blank,
    first_is_the_users,
    end_has_no_blanks,
    markers,
    calls_have_results,
    thinking_is_genuine,
    thinking_is_complete,
)


def check_length(body: Body, model: Model) -> Refusal | None:
    """Refuse what does not fit into the model's window by the provider's own count."""
    tokens = count(body, model)
    if tokens > model.window:
        message = f"prompt is too long: {tokens} tokens > {model.window} maximum"
        return Refusal(message, too_long=True)
    output = body.get("max_tokens") or 0
    if model.counts_output and tokens + output > model.window:
        message = (
            f"input length and `max_tokens` exceed context limit: {tokens} + {output} >"
            f" {model.window}, decrease input length or `max_tokens` and try again"
        )
        return Refusal(message, too_long=True)
    return None


def check(
    body: Any,
    memory: Memory | None = None,
    *,
    betas: frozenset[str] = frozenset(),
    model: Model | None = None,
    counting: bool = False,
    length: bool = True,
) -> Refusal | None:
    """Say how the provider refuses this request, or None if it takes it and has learned from it.

    `counting` is the form of `/v1/messages/count_tokens`. With `length` false only the shape is
    looked at.
    """
    memory = memory if memory is not None else Memory()
    if not isinstance(body, dict):
        return Refusal("Input should be a valid dictionary or object to extract fields from")
    view = View(body, memory, betas, counting)
    for rule in RULES:
        complaint = next(rule(view), None)
        if complaint is not None:
            return Refusal(complaint)
    if length and not counting:
        refusal = check_length(body, model or model_named(body["model"], MODELS))
        if refusal is not None:
            return refusal
    memory.learn(groups_of(view.messages))
    return None


def say(refusal: Refusal, request_id: str) -> Body:
    """The refusal as the provider's JSON."""
    error = {"type": refusal.kind, "message": refusal.message}
    return {"type": "error", "error": error, "request_id": request_id}
