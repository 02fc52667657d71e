"""Calls of functions, as Chat Completions and its kin write them."""

from __future__ import annotations

from mitmcontext.values import Kind, Part, Span, Unreadable
from mitmcontext.wire import spans
from mitmcontext.wire.digests import block_digest
from mitmcontext.wire.places import is_array, is_null, is_string, optional_text, text_of


def called(text: bytes, span: Span) -> tuple[str, str]:
    """The name of a called function, and the name with its arguments as one text.

    Raises:
        Unreadable: no object, or a name that is no string.
    """
    fields = spans.unique(text, span)
    name = optional_text(text, fields.get("name"))
    given = fields.get("arguments") or fields.get("input")
    if given is not None and not is_string(text, given) and not is_null(text, given):
        return name, f"{name} {text[slice(*given)].decode()}"
    return name, f"{name} {optional_text(text, given)}"


def listed_calls(text: bytes, raw: bytes, listed: Span | None) -> list[Part]:
    """The calls in a message's `tool_calls`, each with an id; none where no list stands there.

    Raises:
        Unreadable: a call that is none.
    """
    found = []
    if listed is not None and is_array(text, listed):
        for span in spans.elements(text, listed):
            call = spans.unique(text, span)
            if "id" not in call:
                raise Unreadable("a tool call without id")
            body = call.get("function") or call.get("custom")
            name, said = called(text, body) if body else ("", "")
            own = block_digest(text, raw, call)
            call_id = text_of(text, call["id"])
            found.append(Part(Kind.CALL, said, span, call_id=call_id, name=name, digest=own))
    return found
