"""Read a request, and lay over it what is frozen of its conversation."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mitmcontext.births import Births, Born, edits_of
from mitmcontext.condense.entries import Entry, Found, FrozenEdit
from mitmcontext.condense.ledger import Ledger, chain
from mitmcontext.known import Fact, Known, tag
from mitmcontext.recollect import Recollections, moved, placed
from mitmcontext.rewrite import rewritten
from mitmcontext.stretches import Overlay, Stretch, is_due, is_same, stretch_of
from mitmcontext.tokens.families import Family
from mitmcontext.values import Request, Span
from mitmcontext.wire.api import Api, message_of


class Reading(msgspec.Struct, frozen=True):
    """A request as read, with what is known of each message and the links of the conversation.

    `stretch` is what of it was read before; `counted` are the estimates of the messages in it.
    `beside` names what stands beside messages and system prompt.
    """

    api: Api
    family: Family
    request: Request
    facts: list[Fact]
    links: list[bytes]
    stretch: Stretch | None = None
    counted: tuple[int, ...] = ()
    beside: bytes | None = None


class Laid(msgspec.Struct, frozen=True):
    """What the client sent, and the same with the frozen edits laid over it.

    Without frozen edits both are one and the same. `births` are the messages behind the entry's
    whose results are reduced since they are new.
    """

    sent: Reading
    forwarded: Reading
    found: Found | None
    births: Mapping[int, Born] = msgspec.field(default_factory=dict)

    @property
    def edits(self) -> tuple[FrozenEdit, ...]:
        """All that is laid over what the client sent."""
        return (self.found.entry.edits if self.found else ()) + edits_of(self.births)


def read(
    api: Api,
    family: Family,
    request: Request,
    seed: bytes,
    known: Known,
    stretch: Stretch | None = None,
) -> Reading:
    """Recognise the messages of a request, and link them to a conversation.

    Args:
        api: whose request it is.
        family: of the model.
        request: as read.
        seed: what the links begin with: tenant, API and model.
        known: what is known of messages.
        stretch: what of this request was read before.

    Raises:
        Unreadable: a message is none of this API's.
    """
    if stretch is None or stretch.tag != tag(api, family) or stretch.seed != seed:
        facts = known.recall(api, family, request)
        links = chain(seed, [fact.digest for fact in facts])
        return Reading(api, family, request, facts, links, beside=known.beside(request))
    new = known.recall(api, family, request, len(stretch.facts))
    more = chain(stretch.links[-1], [fact.digest for fact in new])
    facts, links = stretch.facts + new, stretch.links + more
    beside = known.beside(request)
    return Reading(api, family, request, facts, links, stretch, stretch.tokens, beside)


def size_to(reading: Reading, at: int) -> int:
    """The bytes of the messages up to the one with this index, and with it."""
    return sum(end - start for start, end in reading.request.spans[: at + 1])


def lay(
    sent: Reading, ledger: Ledger, seed: bytes, known: Known, births: Births | None = None
) -> Laid:
    """Lay over a request what is frozen of its conversation.

    Raises:
        Broken: an entry does not fit what it was made for.
    """
    return lay_found(sent, ledger.find(sent.links), seed, known, births)


def lay_found(
    sent: Reading, found: Found | None, seed: bytes, known: Known, births: Births | None = None
) -> Laid:
    """The same with an entry that was looked up before.

    Raises:
        Broken: the entry does not fit what it was made for.
    """
    if found is None:
        return Laid(sent, sent, None)
    new: Mapping[int, Born] = {}
    if births is not None and found.entry.born is not None:
        new = births.of(sent, found.at + 1)
    base = with_births(sent, new)
    if not found.entry.edits:
        return Laid(sent, base, found, new)
    stretch = sent.stretch
    if stretch and stretch.overlay and is_same(stretch.overlay.found, found):
        return Laid(sent, _joined(base, stretch, stretch.overlay), found, new)
    made = sent.api.read(rewritten(sent.api, base.request, found.entry.edits))
    return Laid(sent, read(sent.api, sent.family, made, seed, known), found, new)


def is_laid_already(sent: Reading, found: Found | None, births: Births) -> bool:
    """Whether next to nothing is to be done to lay an entry over a request."""
    if found is None:
        return True
    if found.entry.born is not None and not births.knows(sent, found.at + 1):
        return False
    overlay = sent.stretch.overlay if sent.stretch else None
    return not found.entry.edits or (overlay is not None and is_same(overlay.found, found))


def with_births(sent: Reading, births: Mapping[int, Born]) -> Reading:
    """A reading with reduced messages in the place of the client's."""
    if not births:
        return sent
    request, facts = sent.request, list(sent.facts)
    pieces: list[bytes] = []
    places: list[Span] = []
    at = shift = 0
    for index, span in enumerate(request.spans):
        born = births.get(index)
        start = span.start + shift
        if born is not None:
            pieces += (request.body[at : span.start], born.raw)
            at = span.end
            shift += len(born.raw) - (span.end - span.start)
            facts[index] = born.fact
        places.append(Span(start, span.end + shift))
    body = b"".join((*pieces, request.body[at:]))
    array = Span(request.array.start, request.array.end + shift)
    made = moved(request, body, array, tuple(places), shift)

    first = min(births)
    before = sent.links[first - 1]
    links = sent.links[:first] + chain(before, [fact.digest for fact in facts[first:]])
    counted = sent.counted[:first]
    return Reading(sent.api, sent.family, made, facts, links, None, counted, sent.beside)


def first_birth(sent: Reading, found: Found | None, births: Births) -> Entry | None:
    """From where on new results of a conversation are reduced, where there is the first of them.

    Everything up to the model's last message may have been sent before, as it is. The entry holds
    what was found, and has to be frozen before it is laid over a request.
    """
    answer = last_answer(sent)
    if answer is None or not births.of(sent, answer + 1):
        return None
    if found is None:
        return Entry((), step=0, before=0, after=0, level="", born=answer)
    earlier = (*found.entry.earlier, sent.links[found.at])
    return msgspec.structs.replace(found.entry, earlier=earlier, born=answer)


def last_answer(sent: Reading) -> int | None:
    """The index of the model's last message, but for one that it is to go on with."""
    for at in range(len(sent.facts) - 2, -1, -1):
        if message_of(sent.api, sent.request.raw(at)).role == "assistant":
            return at
    return None


def keep(laid: Laid, seed: bytes, recollections: Recollections) -> None:
    """Keep what was read, for the next request of the conversation."""
    sent, forwarded = laid.sent, laid.forwarded
    # What is only reduced at birth is laid over a request without reading it.
    found = laid.found if laid.found is not None and laid.found.entry.edits else None
    if not is_due(sent.stretch, len(sent.facts), found):
        return
    overlay = None
    if found is not None:
        overlay = found, forwarded.request, forwarded.facts, forwarded.links
    named = tag(sent.api, sent.family)
    stretch = stretch_of(
        sent.api,
        sent.request,
        sent.facts,
        sent.links,
        named,
        seed,
        overlay,
        recollections.mark,
        sent.stretch,
    )
    if stretch is not None:
        recollections.keep(sent.request, stretch, sent.stretch)


def _joined(sent: Reading, stretch: Stretch, overlay: Overlay) -> Reading:
    """A reading of what an entry makes of a request: the stretch made anew, the rest as it is."""
    request = sent.request
    start, count = request.array.start, len(stretch.spans)
    at = request.spans[count - 1].end
    shift = len(overlay.made) - (at - start)
    body = b"".join((request.body[:start], overlay.made, request.body[at:]))

    known = placed(overlay.spans, start - overlay.start)
    array = Span(start, request.array.end + shift)
    made = moved(request, body, array, (*known, *placed(request.spans[count:], shift)), shift)
    rest = sent.facts[count:]
    more = chain(overlay.links[-1], [fact.digest for fact in rest])
    facts, links = overlay.facts + rest, overlay.links + more
    return Reading(sent.api, sent.family, made, facts, links, None, overlay.tokens, sent.beside)
