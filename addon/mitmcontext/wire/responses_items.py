"""OpenAI Responses: what one item of the history is read as.

Messages, calls, their outputs and the model's reasoning each stand for themselves. What a server
keeps of an item (its id, its status) says nothing of what the model reads, so it is left out of
digests; it is always taken from the request at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mitmcontext.values import Kind, Message, Part, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.digests import MARKER, digest, message_digest
from mitmcontext.wire.places import is_string, optional_text, outer, without_media
from mitmcontext.wire.responses_parts import (
    NOTED,
    Fields,
    Item,
    Parts,
    bare_text,
    call,
    message,
    output,
    picture,
    reasoning,
    remote_call,
    run_by_server,
    screenshot,
    shell_output,
    unsealed,
)

_ROLES: Final = ("system", "developer", "user", "assistant")


def parse(raw: bytes) -> Message:
    """Read one item, or an `input` that is nothing but a string: one message that was typed.

    Raises:
        Unreadable: not an item of this API.
    """
    return spans.tolerant(raw, _parse)


def _parse(text: bytes, raw: bytes) -> Message:
    whole = outer(text)
    if is_string(text, whole):
        part = bare_text(text, raw, "user", whole)
        own = message_digest("user", (part,), (b"message",))
        return Message("user", (part,), own, editable=text is raw, item=True)
    fields = spans.unique(text, whole)
    name = type_of(text, fields)
    shape = _SHAPES.get(name)
    if shape is None:
        return _kept_whole(text, raw, whole, fields, name)
    item = Item(text, raw, whole, fields, name)
    role = shape.role or _role_of(text, fields)
    parts = tuple(shape.parts(item, role))
    return Message(
        role=role,
        parts=parts,
        digest=message_digest(role, parts, item.rest(shape.told)),
        markers=sum(part.marked for part in parts) + (MARKER in fields),
        editable=text is raw and set(fields) <= shape.keys | NOTED | {"type", MARKER},
        item=True,
    )


def type_of(text: bytes, fields: Fields) -> str:
    """An item's type; "message" where only a role says so, "" where nothing does."""
    return optional_text(text, fields.get("type")) or ("message" if "role" in fields else "")


def _role_of(text: bytes, fields: Fields) -> str:
    role = optional_text(text, fields.get("role"))
    if role not in _ROLES:
        raise Unreadable("a message with a role that is not known")
    return role


def _kept_whole(text: bytes, raw: bytes, whole: Span, fields: Fields, name: str) -> Message:
    """An item that only the server understands.

    One of an unknown type counts as the model's: should reasoning stand before it, or what
    reasoning wants behind it, they stay together.
    """
    role = _OPAQUE_ROLES.get(name, "assistant")
    item = Item(text, raw, whole, fields, name)
    pieces = list(item.rest()) if name in _OPAQUE_ROLES else [raw]
    said = "" if name == "compaction_trigger" else _counted_text(item)
    part = Part(Kind.OPAQUE, said, whole, digest=digest(pieces))
    return Message(role, (part,), message_digest(role, (part,)), editable=False, item=True)


def _counted_text(item: Item) -> str:
    sealed = item.fields.get("encrypted_content")
    if sealed is not None and is_string(item.text, sealed):
        return unsealed(sealed)
    return without_media(item.text, item.whole)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a type of item is read.

    Attributes:
        role: whose it is; "" where it says so itself.
        keys: the fields that it may have.
        parts: (item, role) to its parts.
        told: the fields of which nothing counts but what the parts' digests hold.
    """

    role: str
    keys: frozenset[str]
    parts: Callable[[Item, str], Parts]
    told: frozenset[str] = frozenset()


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SHAPES: Final[Mapping[str, _Shape]] = {
    "message": _Shape("", _keys("role content phase"), message, _keys("content")),
    "reasoning": _Shape("assistant", _keys("summary content encrypted_content"), reasoning),
    "function_call": _Shape("assistant", _keys("call_id name namespace arguments"), call),
    "custom_tool_call": _Shape("assistant", _keys("call_id name namespace input"), call),
    "local_shell_call": _Shape("assistant", _keys("call_id action"), call),
    "shell_call": _Shape("assistant", _keys("call_id action environment max_output_length"), call),
    "apply_patch_call": _Shape("assistant", _keys("call_id operation"), call),
    "computer_call": _Shape(
        "assistant", _keys("call_id action actions pending_safety_checks"), call
    ),
    "function_call_output": _Shape("tool", _keys("call_id output"), output, _keys("output")),
    "custom_tool_call_output": _Shape(
        "tool", _keys("call_id name output"), output, _keys("output")
    ),
    "local_shell_call_output": _Shape("tool", _keys("call_id output"), output, _keys("output")),
    "apply_patch_call_output": _Shape("tool", _keys("call_id output"), output, _keys("output")),
    "shell_call_output": _Shape(
        "tool", _keys("call_id output max_output_length"), shell_output, _keys("output")
    ),
    "computer_call_output": _Shape(
        "tool", _keys("call_id output acknowledged_safety_checks"), screenshot, _keys("output")
    ),
    "web_search_call": _Shape("assistant", _keys("action"), run_by_server),
    "file_search_call": _Shape("assistant", _keys("queries results"), run_by_server),
    "code_interpreter_call": _Shape("assistant", _keys("code container_id outputs"), run_by_server),
    "mcp_call": _Shape(
        "assistant",
        _keys("server_label name arguments output error approval_request_id"),
        remote_call,
    ),
    "image_generation_call": _Shape(
        "assistant",
        _keys("result revised_prompt action background output_format quality size"),
        picture,
    ),
}
# Items that are kept as they are, and whose they are.
_OPAQUE_ROLES: Final[Mapping[str, str]] = {
    "additional_tools": "developer",
    "configuration_update": "developer",
    "compaction": "developer",
    "compaction_summary": "developer",
    "context_compaction": "developer",
    "compaction_trigger": "developer",
    "mcp_list_tools": "developer",
    "mcp_approval_request": "assistant",
    "mcp_approval_response": "user",
}
