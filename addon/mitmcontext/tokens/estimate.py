"""The estimate of a request's input tokens: what is fixed, and each message for itself.

An estimate is a weighted sum. `message_counts` and `outside_counts` say what there is to be
counted (tokens of text, messages, calls, tools ...), a family's weights what each of it costs; what
fits the weights to recorded requests uses the same counts. Images have a price of their own.

A message's figure depends on nothing but the message and the family, so it can be kept and reused.
Each figure is rounded to the nearest whole token, which evens out over a conversation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mitmcontext.tokens import tools, typescript
from mitmcontext.tokens.families import Family
from mitmcontext.values import Kind, Message, Part, Picture

Count = Callable[[str], int]
"""The tokens of a text, in the family's encoding."""

TYPESCRIPT: Final = "typescript"

# Characters: base64 of less is no file, and readers leave it in the text.
_DATA: Final = 2_000
_PAGE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Outside:
    """What stands in a request beside its messages. Of the JSON, spacing does not matter.

    Attributes:
        system: whether a system prompt stands beside the messages (its texts count apart).
        tools: the JSON list of tools; "" where there are none.
        choice: the JSON of the tool choice; "" where nothing is said.
        schema: the JSON of what the answer has to look like; "" where nothing is said.
        thinks: whether the model is asked to think.
    """

    system: bool = False
    tools: str = ""
    choice: str = ""
    schema: str = ""
    thinks: bool = False


def message_tokens(message: Message, family: Family, count: Count) -> int:
    """Input tokens of one message."""
    tokens = family.weigh(message_counts(message, count))
    if any(part.images or part.kind == Kind.IMAGE for part in message.parts):
        tokens += sum(family.image.tokens(*shown) for shown in pictures_of(message))
    return _whole(tokens)


def text_tokens(text: str, family: Family, count: Count) -> int:
    """Input tokens of a text that belongs to no message: a piece of the system prompt."""
    return _whole(family.weigh({"text": count(text)}))


def fixed_tokens(outside: Outside, family: Family, count: Count) -> int:
    """Input tokens of all that is no message, but for the system prompt's texts."""
    return _whole(family.weigh(outside_counts(outside, family.form, count)))


def message_counts(message: Message, count: Count) -> dict[str, float]:
    """What there is to be counted in a message.

    `text`: tokens of all text, calls with their names and arguments among it. `thinking`: those of
    thinking, `sealed` a quarter of the characters of thinking that only the provider can read.
    `name`: those of the called functions' names, which some models see once more with the
    result. `call`, `result`: how many of them. `further`: calls beside the first; `parallel`: 1
    where there are any. `page`: of documents; `media`: kilobytes of sounds, films and other files,
    in base64. `message`: 1, and 0 for an item of thinking alone, which is none in the
    model's eyes.
    """
    found: dict[str, float] = defaultdict(float)
    results: set[str] = set()
    for part in message.parts:
        if part.kind == Kind.CALL:
            given = part.text[len(part.name) :].strip()
            name = count(part.name)
            found["name"] += name
            found["text"] += name + count(_said_once(given))
            found["call"] += 1
        elif part.text:
            found["thinking" if part.kind == Kind.THINKING else "text"] += count(part.text)
        elif part.kind == Kind.THINKING:
            found["sealed"] += (part.span.end - part.span.start) / 4
        if part.kind in (Kind.DOCUMENT, Kind.OPAQUE):
            found.update(_beside_text(part, found))
        # A result may have several parts. One without an id is a user's text in the API's eyes.
        if part.kind == Kind.RESULT and part.call_id:
            results.add(part.call_id)
    found["result"] = len(results)
    found["further"] = max(0, found["call"] - 1)
    found["parallel"] = int(found["call"] > 1)
    thoughts = message.item and all(part.kind == Kind.THINKING for part in message.parts)
    found["message"] = int(not thoughts)
    return found


def _beside_text(part: Part, found: Mapping[str, float]) -> dict[str, float]:
    """What a document, a sound or a film holds that is not in the part's text.

    Nothing is decoded: a page is taken for so many characters of base64, at least one for a file.
    """
    held = part.span.end - part.span.start - len(part.text)
    if held < _DATA or len(part.text) >= _DATA:
        return {}
    if part.kind == Kind.DOCUMENT or "pdf" in part.text:
        return {"page": found.get("page", 0) + math.ceil(held / _PAGE)}
    return {"media": found.get("media", 0) + held / 1_024}


def _said_once(given: str) -> str:
    """A call's arguments without the spaces and escapes that no model sees."""
    value = tools.read(given) if given[:1] in ("{", "[") else None
    return tools.compact(value) or given if value is not None else given


def outside_counts(outside: Outside, form: str, count: Count) -> dict[str, float]:
    """What there is to be counted beside the messages.

    `request`, `system`, `thinks`: 1 each. `tools`: 1 where there are any, `tool`: how many,
    `tool_text`: the tokens of all as the model sees them, by `form`. With tools, 1 for what the
    choice says: `any`, `none`, and `named` if it names one; `strict`: 1 where one is to be called
    strictly. `schema`: 1 where the answer has one, `schema_text`: the tokens of that.
    """
    found: dict[str, float] = {"request": 1, "system": int(outside.system)}
    found["thinks"] = int(outside.thinks)
    offered = tools.listed(outside.tools) if outside.tools else []
    if offered:
        choice = tools.chosen(outside.choice) if outside.choice else tools.Choice()
        found |= {
            "tools": 1,
            "tool": len(offered),
            "tool_text": _tool_text(offered, form, count),
            choice.mode: 1,
            "named": int(bool(choice.name)),
            "strict": int(any(tool.strict for tool in offered)),
        }
    wanted = tools.wanted(outside.schema) if outside.schema else None
    if wanted is not None:
        seen = (
            typescript.response_format(wanted)
            if form == TYPESCRIPT
            else tools.compact(wanted.schema)
        )
        found |= {"schema": 1, "schema_text": count(seen)}
    return found


def _tool_text(offered: list[tools.Tool], form: str, count: Count) -> int:
    if form == TYPESCRIPT:
        return count(typescript.namespace(offered))
    return sum(count(tools.described(tool)) for tool in offered)


def pictures_of(message: Message) -> Iterator[tuple[Picture, int]]:
    """The images of a message, each with the characters of text in the same message.

    Those that nobody looked at have no size.
    """
    beside = sum(len(part.text) for part in message.parts)
    for part in message.parts:
        shown = max(part.images, 1 if part.kind == Kind.IMAGE else 0)
        unseen = (Picture() for _ in range(shown - len(part.pictures)))
        yield from ((picture, beside) for picture in (*part.pictures[:shown], *unseen))


def _whole(tokens: float) -> int:
    return max(0, math.floor(tokens + 0.5))
