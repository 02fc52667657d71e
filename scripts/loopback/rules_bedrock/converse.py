"""What Converse refuses, in which words, and what of a request counts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback.answers import Json
from loopback.counting import Model, count
from loopback.http1 import Wire
from loopback.refusal import Refusal, names
from loopback.rules_bedrock.signing import MISMATCH, is_forged

MOST_MARKERS = 4
_TOP = names(
    "additionalModelRequestFields additionalModelResponseFieldPaths guardrailConfig inferenceConfig"
    " messages outputConfig performanceConfig promptVariables requestMetadata serviceTier system"
    " toolConfig"
)
_BLOCKS = {
    "user": names(
        "text image document video audio toolResult cachePoint guardContent searchResult"
    ),
    "assistant": names("text toolUse reasoningContent cachePoint citationsContent image"),
}
_IN_RESULT = names("text json image document video searchResult")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass
class Memory:
    """What the provider knows of one account: the reasoning that it wrote or saw, by signature."""

    key: bytes = b"loopback"
    text_under: dict[str, str] = field(default_factory=dict)

    def sign(self, text: str) -> str:
        """Issue the signature of a reasoning text."""
        digest = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha512).digest()
        signature = base64.b64encode(digest).decode()
        self.text_under[signature] = text
        return signature


def history(body: Json) -> list[Json]:
    """The messages without cache points, which are nothing to read; media as such."""
    return [
        {**message, "content": [_counted(block) for block in message["content"] if _says(block)]}
        for message in body["messages"]
    ]


def _says(block: Json) -> bool:
    return "cachePoint" not in block


def _counted(block: Json) -> Json:
    if "image" in block or "document" in block:
        return {"type": "image"}
    result = block.get("toolResult")
    if isinstance(result, dict):
        return {"toolResult": {**result, "content": [_counted(b) for b in result["content"]]}}
    return block


def head(body: Json) -> Json:
    """What counts before the messages."""
    system = [block["text"] for block in body.get("system") or [] if "text" in block]
    tools = (body.get("toolConfig") or {}).get("tools") or []
    return {"system": "\n".join(system), "tools": [tool for tool in tools if _says(tool)]}


@dataclass(frozen=True)
class View:
    """A Converse request as the rules see it."""

    body: Json
    memory: Memory

    def blocks(self) -> Iterator[tuple[int, int, Json]]:
        """Every block with its place, once shapes were found good."""
        for index, message in enumerate(self.body["messages"]):
            for number, block in enumerate(message["content"]):
                yield index, number, block

    def ids(self, index: int, kind: str) -> list[str]:
        """The ids of the calls or of the results in one message."""
        messages = self.body["messages"]
        if not 0 <= index < len(messages):
            return []
        return [block[kind]["toolUseId"] for block in messages[index]["content"] if kind in block]


Rule = Callable[[View], Iterator[str]]


def top_level(view: View) -> Iterator[str]:
    """Only known keys; lists and objects where they must be."""
    for key, value in view.body.items():
        if key not in _TOP:
            yield (
                f"Malformed input request: #: extraneous key [{key}] is not permitted, please"
                " reformat your input and try again."
            )
        wanted = list if key in ("messages", "system") else dict
        if key.endswith("Paths"):
            wanted = list
        if value is not None and not isinstance(value, wanted):
            yield _unexpected(key)
    if not view.body.get("messages"):
        yield "The messages field is empty. Add a Message object to the messages field."
    for number, block in enumerate(view.body.get("system") or []):
        if not isinstance(block, dict) or len(block) != 1:
            yield _unexpected(f"system.{number}")
            return
        if "text" in block and not isinstance(block["text"], str):
            yield _unexpected(f"system.{number}.text")


def _unexpected(where: str) -> str:
    return f"Unexpected field type at {where}"


def tool_config(view: View) -> Iterator[str]:
    """A list of tools, each of one kind."""
    config = view.body.get("toolConfig")
    if config is None:
        return
    tools = config.get("tools")
    if not isinstance(tools, list) or not tools:
        yield "The tools field in the ToolConfiguration object at toolConfig is empty."
        return
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict) or len(tool) != 1:
            yield _unexpected(f"toolConfig.tools.{number}")


def message_shapes(view: View) -> Iterator[str]:
    """Roles, lists of blocks with a single key each, and no blank text."""
    for index, message in enumerate(view.body["messages"]):
        if not isinstance(message, dict) or set(message) - {"role", "content"}:
            yield _unexpected(f"messages.{index}")
            return
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            yield (
                f"Value '{role}' at 'messages.{index + 1}.member.role' failed to satisfy"
                " constraint: Member must satisfy enum value set: [user, assistant]"
            )
            return
        if not isinstance(content, list) or not content:
            yield (
                f"The content field in the Message object at messages.{index} is empty. Add a"
                " ContentBlock object to the content field and try again."
            )
            return
        for number, block in enumerate(content):
            yield from _block(f"messages.{index}.content.{number}", role, block)


def _block(where: str, role: str, block: Any) -> Iterator[str]:
    if not isinstance(block, dict) or len(block) != 1 or not set(block) <= _BLOCKS[role]:
        yield (
            f"The format of the value at {where} is invalid. Provide a json object for the field"
            f" with one of: {', '.join(sorted(_BLOCKS[role]))}"
        )
        return
    ((kind, held),) = block.items()
    if kind == "text":
        yield from _text(where, held)
    elif not isinstance(held, dict):
        yield _unexpected(f"{where}.{kind}")
    elif kind in ("toolUse", "toolResult"):
        yield from _tool_block(where, kind, held)


def _text(where: str, held: Any) -> Iterator[str]:
    if not isinstance(held, str):
        yield _unexpected(f"{where}.text")
    elif not held.strip():
        yield (
            f"The text field in the ContentBlock object at {where} is blank. Add text to the text"
            " field, and try again."
        )


def _tool_block(where: str, kind: str, held: Json) -> Iterator[str]:
    if not isinstance(held.get("toolUseId"), str) or not _ID.fullmatch(held["toolUseId"]):
        yield (
            f"Value at '{where}.{kind}.toolUseId' failed to satisfy constraint: Member must satisfy"
            " regular expression pattern: [a-zA-Z0-9_-]+"
        )
    if kind == "toolUse":
        if not isinstance(held.get("name"), str) or not isinstance(held.get("input"), dict):
            yield (
                f"The format of the value at {where}.toolUse.input is invalid. Provide a json"
                " object for the field and try again."
            )
        return
    content = held.get("content")
    if not isinstance(content, list):
        yield _unexpected(f"{where}.toolResult.content")
        return
    for number, inner in enumerate(content):
        place = f"{where}.toolResult.content.{number}"
        if not isinstance(inner, dict) or len(inner) != 1 or not set(inner) <= _IN_RESULT:
            yield f"The format of the value at {place} is invalid."
            return
        if "text" in inner and not isinstance(inner["text"], str):
            yield _unexpected(f"{place}.text")


def turns(view: View) -> Iterator[str]:
    """A user begins, and no role speaks twice in a row."""
    roles = [message["role"] for message in view.body["messages"]]
    if roles[0] != "user":
        yield (
            "A conversation must start with a user message. Try again with a conversation that"
            " starts with a user message."
        )
    if any(roles[at] == roles[at - 1] for at in range(1, len(roles))):
        yield (
            "A conversation must alternate between user and assistant roles. Make sure the"
            " conversation alternates between user and assistant roles and try again."
        )


def pairs(view: View) -> Iterator[str]:
    """Each call is answered in the next message, and nothing else is; tools stay declared."""
    for index in range(len(view.body["messages"])):
        asked, answered = view.ids(index - 1, "toolUse"), view.ids(index, "toolResult")
        missing = [id_ for id_ in asked if id_ not in answered]
        if missing:
            yield (
                f"Expected toolResult blocks at messages.{index}.content for the following Ids:"
                f" {', '.join(missing)}"
            )
        if len(answered) > len(asked):
            yield (
                f"The number of toolResult blocks at messages.{index}.content exceeds the number of"
                " toolUse blocks of previous turn."
            )
    kinds = ("toolUse", "toolResult")
    if not view.body.get("toolConfig") and any(k in b for _, _, b in view.blocks() for k in kinds):
        yield (
            "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        )


def reasoning(view: View) -> Iterator[str]:
    """What was signed is sent as it was signed."""
    for index, number, block in view.blocks():
        thought = block.get("reasoningContent", {}).get("reasoningText")
        if isinstance(thought, dict) and isinstance(thought.get("signature"), str):
            known = view.memory.text_under.setdefault(thought["signature"], thought.get("text", ""))
            if known != thought.get("text", ""):
                where = f"messages.{index}.content.{number}"
                yield f"{where}: Invalid `signature` in `thinking` block"


def markers(view: View) -> Iterator[str]:
    """No more cache points than the provider keeps."""
    tools = (view.body.get("toolConfig") or {}).get("tools") or []
    held = [*(view.body.get("system") or []), *tools, *(block for _, _, block in view.blocks())]
    found = sum("cachePoint" in block for block in held)
    if found > MOST_MARKERS:
        yield (
            f"A maximum of {MOST_MARKERS} blocks with cache_control may be provided. Found {found}."
        )


RULES: tuple[Rule, ...] = (
    top_level,
    tool_config,
    message_shapes,
    turns,
    pairs,
    reasoning,
    markers,
)


def check(body: Any, memory: Memory, wire: Wire | None, model: Model) -> Refusal | None:
    """Say how Converse refuses this request, or None if it takes it."""
    if is_forged(wire):
        return Refusal(MISMATCH, 403)
    if not isinstance(body, dict):
        return Refusal("Malformed input request, please reformat your input and try again.")
    view = View(body, memory)
    for rule in RULES:
        complaint = next(rule(view), None)
        if complaint is not None:
            return Refusal(complaint)
    if count({**head(body), "messages": history(body)}, model) > model.window:
        return Refusal(
            "The model returned the following errors: Input is too long for requested model.",
            too_long=True,
        )
    return None
