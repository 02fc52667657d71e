"""The values that every part of mitmcontext speaks in.

They hold what was read and what is to be done, never how: no input or output, no clock, no
knowledge of any one API. A message's spans are relative to the message, so that a message which
was read once can be recognised and reused wherever it stands in a later body.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

Place = tuple[int, int]
"""Message and part, by their indices."""


class Unreadable(Exception):
    """This body is not one that we understand. It is forwarded as it came.

    The message is one of our own fixed sentences and never holds a piece of the body.
    """


class Broken(Exception):
    """Our own result failed a check. The rung below is forwarded and the failure is shown."""


class Span(NamedTuple):
    """Byte offsets, end exclusive."""

    start: int
    end: int

    def shifted(self, by: int) -> Span:
        """The same stretch, counted from a place that lies `by` bytes earlier."""
        return Span(self.start + by, self.end + by)


class Edit(NamedTuple):
    """Put `new` where `span` is. What no edit mentions stays as it is, to the byte."""

    span: Span
    new: bytes


class Kind(StrEnum):
    """What a part of a message is, in the field's words."""

    SYSTEM = "system prompt"
    TYPED = "typed text"
    PROSE = "model text"
    CALL = "tool call"
    RESULT = "tool result"
    THINKING = "thinking"
    IMAGE = "image"
    DOCUMENT = "document"
    ENVIRONMENT = "environment block"
    OPAQUE = "opaque item"


MEDIA: Final = (Kind.IMAGE, Kind.DOCUMENT)
"""What stands in a message as a block to look at or to read."""


class Level(StrEnum):
    """How full the window is, by the specification's thresholds."""

    SAFE = "safe"
    CAUTION = "caution"
    WARNING = "warning"
    CRITICAL = "critical"
    OVERFLOW = "overflow"


class Standing(StrEnum):
    """What a request is to its conversation."""

    TURN = "a turn"
    NO_TURN = "no turn"  # it belongs to the conversation: frozen edits are laid over it, no step
    ALONE = "left alone"


class Action(StrEnum):
    """What became of a request."""

    LEFT_ALONE = "left_alone"
    UNDER_THRESHOLD = "under_threshold"
    NO_STEP = "no_step"
    CONDENSED = "condensed"
    REAPPLIED = "reapplied"
    OBSERVED = "observed"
    FAILED_OPEN = "failed_open"


class Picture(NamedTuple):
    """An image as its price goes by it: pixels (0 where nobody knows), and the detail asked for."""

    width: int = 0
    height: int = 0
    detail: str = ""


class Medium(NamedTuple):
    """An image or a document as a person would name it.

    `format` is such as "PNG", "" where nobody knows; `size` is in bytes and `sha` the first eight
    digits of their SHA-256, 0 and "" where they are held elsewhere. `link` is where, without query.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    sha: str = ""
    link: str = ""


# Some hundred of these are made for each new request, in a fifth of the time of a dataclass. They
# refer to nothing that could refer back.
class Part(msgspec.Struct, frozen=True, gc=False):
    """One content part of a message.

    `text` is decoded text: what is counted and what a person reads (of a call: its name and
    arguments). `value` is the JSON value that a shorter text may take the place of (of an image or
    a document: the whole block, which a block of text replaces), or None where nothing may. A tool
    result sent as a user's text (as agents without tool calling do) is a RESULT without a
    `call_id`. Of its `images`, `pictures` are those whose size was looked at. What is `removable`
    is an element of a list that may go as a whole, once it is old enough.
    """

    kind: Kind
    text: str
    span: Span
    value: Span | None = None
    call_id: str = ""
    name: str = ""
    images: int = 0
    digest: bytes = b""
    marked: bool = False
    pictures: tuple[Picture, ...] = ()
    removable: bool = False


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message: spans relative to its first byte, `digest` equal for equal content.

    The digest leaves `cache_control` out and takes a string for a single text block, since
    clients move the one and flip the other while the message stays the same. `editable` is False
    where something is odd (an unknown key, a lone surrogate): such a message is kept whole.
    `role` is one of "system", "developer", "user", "assistant", "tool" and "function", whatever
    the API calls it. `item` marks an item of an API that lists a call, its reasoning and its
    result each on its own.
    """

    role: str
    parts: tuple[Part, ...]
    digest: bytes
    markers: int = 0
    editable: bool = True
    item: bool = False


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request as read: what decides about it, and where its messages lie in `body`.

    `system` is a string, a list of blocks with texts, or an object with a list of such `parts`.
    `window` is the context window in tokens that the request itself asks for. `hidden` says that
    the provider adds history which the body does not hold. `sender` is what stands there of who
    sends it; it holds for the body as it came. `choice` says which tools the model may or must
    call, `schema` what its answer has to look like; both count, whatever stands there. `thinks`
    says that the model is asked to think, which some are told in a prompt of the provider's.
    """

    body: bytes
    model: str
    array: Span
    spans: tuple[Span, ...]
    system: Span | None = None
    tools: Span | None = None
    max_output: int | None = None
    stream: bool = False
    attested: bool = False
    edited_by_server: bool = False
    window: int | None = None
    hidden: bool = False
    sender: Span | None = None
    choice: Span | None = None
    schema: Span | None = None
    thinks: bool = False

    def raw(self, index: int) -> bytes:
        """The bytes of one message."""
        span = self.spans[index]
        return self.body[span.start : span.end]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Input and output tokens as the provider itself reported them; None where it said nothing.

    `input_tokens` is everything that fills the window, cached parts included.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


class TooLong(NamedTuple):
    """A provider's refusal of a request's length: the sizes in tokens that it named, if any."""

    sent: int | None = None
    window: int | None = None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One thing that was done to a conversation, for people to read.

    `what` is "stub", "fold", "drop", or "birth" for a result that was reduced when it was new.
    `first` and `last` are indices into the client's messages.
    `before` and `after` are bounded excerpts.
    """

    what: str
    first: int
    last: int
    kind: str
    tokens_before: int
    tokens_after: int
    before: str
    after: str
    new: bool = True


class Money(NamedTuple):
    """What a request has cost by its provider's report, and what it saved, in US dollars.

    `saved` is against what the request would have cost as the client sent it: an estimate, and
    negative where it cost more. In observe mode, where it did go out so, it is what would have been
    saved. The last two are of the whole conversation so far. `known` is False where nobody knows
    the model's prices; then all figures are 0 and say nothing.
    """

    known: bool
    cost: float
    saved: float
    cost_so_far: float
    saved_so_far: float


class Outcome(msgspec.Struct, frozen=True):
    """Everything there is to show about one request. `reason` is ours, never the client's words.

    `sent` and `forwarded` are estimates in tokens of the whole request; `room` is what the model
    can take in tokens. `level` and `utilisation` are those before a new step, with only the earlier
    ones laid over the request: `forwarded` plus what the new step `freed`. `steps` counts the steps
    of this conversation so far. `predicted` is what the new step was expected to save over the
    conversation's rest, in dollars and less its price; None where nobody knows the prices.
    `milliseconds` were spent on it, beside those that it `waited` for a model.
    """

    action: Action
    reason: str
    api: str = ""
    model: str = ""
    level: Level = Level.SAFE
    room: int = 0
    sent: int = 0
    forwarded: int = 0
    steps: int = 0
    freed: int = 0
    messages: int = 0
    changes: Sequence[Change] = ()
    milliseconds: float = 0.0
    predicted: float | None = None
    waited: float = 0.0

    @property
    def utilisation(self) -> float:
        """The share of what the model can take that was filled before a new step."""
        return (self.forwarded + self.freed) / self.room if self.room else 0.0
