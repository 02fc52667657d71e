"""The way of a request: read, lay, count, assess, plan, finish.

Each step takes values and gives values. Who calls them, on which thread, under which deadline and
what is forwarded when one of them fails is the business of `proxy/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from mitmcontext.births import EXCERPT, Births, Born, edits_of
from mitmcontext.condense.assess import (
    SURE_TO_FIT,
    WORTHWHILE,
    Thresholds,
    calls_for_step,
    is_forced,
    is_worthwhile,
    level_within,
    may_not_fit,
)
from mitmcontext.condense.conversation import Conversation, Room, folded_by, said
from mitmcontext.condense.cost import (
    Cache,
    Cut,
    Forecast,
    Rates,
    course_of,
    forecast,
    newest_of,
    until_full,
)
from mitmcontext.condense.invariants import broken
from mitmcontext.condense.ledger import (
    WHOLE,
    Entry,
    Found,
    FrozenEdit,
    Ledger,
    chain,
    home,
)
from mitmcontext.condense.summaries.fold import Summary, condensed, standing, together
from mitmcontext.condense.texts import with_images
from mitmcontext.condense.thinking import turn_started
from mitmcontext.condense.units import unpaired
from mitmcontext.known import Fact, Known, beside_of, tag
from mitmcontext.models.windows import Window
from mitmcontext.recollect import (
    Overlay,
    Recollections,
    Stretch,
    is_due,
    is_same,
    moved,
    placed,
    stretch_of,
)
from mitmcontext.rewrite import rewritten, sources
from mitmcontext.tokens.calibration import Scale
from mitmcontext.tokens.families import Family
from mitmcontext.values import Broken, Change, Kind, Level, Message, Request, Span
from mitmcontext.wire.api import Api, message_of
from mitmcontext.wire.media import media_in

# What a request costs beside its bytes: the provider's own wrapping of tools and messages. The
# largest constants known are below 1,000 tokens.
_BESIDE_BYTES: Final = 2_000
# What may count for more tokens than it has bytes in the body. One expression that begins with a
# quote takes a sixth of the time that looking for each by itself does.
_MEDIA: Final = re.compile(
    rb'"(?:image|video|inlineData|inline_data|fileData|file_data'
    rb'|(?:document|file|input_audio|input_image|input_file|computer_screenshot|container)")'
)
# Steps of the ratio that a plan is made with.
_COARSE: Final = 0.1
# A step goes so far below the target where that leaves some old content: each one costs the
# provider's cache, and on recorded sessions what goes last is seldom needed again.
_FURTHER: Final = 0.5
# A step frees so much more of the room than what makes it worthwhile: estimates are a little off.
_CLEARLY: Final = 0.02
_SHOWN: Final = 60
_EXCERPT: Final = 4_000


@dataclass(frozen=True, slots=True)
class Reading:
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


@dataclass(frozen=True, slots=True)
class Laid:
    """What the client sent, and the same with the frozen edits laid over it.

    Without frozen edits both are one and the same. `births` are the messages behind the entry's
    whose results are reduced since they are new.
    """

    sent: Reading
    forwarded: Reading
    found: Found | None
    births: Mapping[int, Born] = field(default_factory=dict)

    @property
    def edits(self) -> tuple[FrozenEdit, ...]:
        """All that is laid over what the client sent."""
        return (self.found.entry.edits if self.found else ()) + edits_of(self.births)


@dataclass(frozen=True, slots=True)
class Assessment:
    """How full the window is. The figures are the provider's tokens as expected, of whole requests.

    `room` is what is to be enough, `limit` what the model can take: less is the user's wish.
    `sent_tokens` are those of the client's messages, `fixed` those of all else. Uncorrected are
    `estimates`, those of the messages that are to be forwarded, `sent_estimates`, those of the
    client's, and `estimate_fixed`, that of all else.
    """

    level: Level
    room: int
    limit: int
    sent: int
    forwarded: int
    sent_tokens: tuple[int, ...]
    fixed: int
    estimates: tuple[int, ...]
    sent_estimates: tuple[int, ...]
    estimate_fixed: int
    scale: Scale


@dataclass(frozen=True, slots=True)
class Market:
    """What tokens cost, and what the provider's cache has of the conversation.

    `must_pay` says that a step which the model's window does not force has to pay for itself.
    """

    rates: Rates
    known: bool
    cache: Cache
    must_pay: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A step that passed every check: what to freeze, and the request that it makes.

    `estimates` are the uncorrected ones of its messages. `shared` tokens stand before its first
    change; `forecast` is what it is likely to save, where the prices are known.
    """

    entry: Entry
    forwarded: Reading
    estimates: tuple[int, ...]
    changes: tuple[Change, ...]
    shared: int = 0
    forecast: Forecast | None = None
    summarised: bool = False


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
        return Reading(api, family, request, facts, links, beside=beside_of(request))
    new = known.recall(api, family, request, len(stretch.facts))
    more = chain(stretch.links[-1], [fact.digest for fact in new])
    facts, links = stretch.facts + new, stretch.links + more
    beside = beside_of(request)
    return Reading(api, family, request, facts, links, stretch, stretch.tokens, beside)


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
    answer = _last_answer(sent)
    if answer is None or not births.of(sent, answer + 1):
        return None
    if found is None:
        return Entry((), step=0, before=0, after=0, level="", born=answer)
    earlier = (*found.entry.earlier, sent.links[found.at])
    return msgspec.structs.replace(found.entry, earlier=earlier, born=answer)


def _last_answer(sent: Reading) -> int | None:
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


def counts_of(reading: Reading, known: Known) -> tuple[int, ...]:
    """The estimated tokens of each message."""
    api, family, request = reading.api, reading.family, reading.request
    return known.count(api, family, request, reading.facts, reading.counted)


def is_surely_safe(laid: Laid, window: Window, thresholds: Thresholds, budget: int = 0) -> bool:
    """Whether size alone proves that nothing needs to be done, so that counting can wait.

    A tokenizer of bytes never makes more tokens than there are bytes.
    """
    request = laid.sent.request
    most = len(request.body) + _BESIDE_BYTES
    room = within(window.room(request.max_output), budget)
    small = most < thresholds.caution * room
    return laid.found is None and small and _MEDIA.search(request.body) is None


def within(limit: int, budget: int) -> int:
    """The room that is to be enough: no more than the budget, where there is one."""
    return min(limit, budget) if budget else limit


def assess(
    laid: Laid,
    window: Window,
    thresholds: Thresholds,
    known: Known,
    scale_of: Callable[[int, int], Scale],
    budget: int = 0,
) -> Assessment:
    """Count what was sent and what is to be forwarded, and say how full the window is.

    `scale_of` takes the uncorrected estimate of what is to be forwarded and the part of it that is
    no message; it says what earlier answers of this provider showed.
    """
    sent, forwarded = laid.sent, laid.forwarded
    fixed = known.fixed(sent.family, sent.request, sent.beside)
    each = counts_of(sent, known)
    made = each if forwarded is sent else counts_of(forwarded, known)
    scale = scale_of(fixed + sum(made), fixed)
    scaled = scale.each(each, [end - start for start, end in sent.request.spans])
    base = round(fixed + scale.offset)
    total = base + sum(scaled)
    after = total
    if laid.found is not None:
        after = base + _scaled(sent, laid.edits, scaled, made, scale)
    limit = window.room(sent.request.max_output)
    room = within(limit, budget)
    return Assessment(
        level=level_within(after, room, limit, thresholds),
        room=room,
        limit=limit,
        sent=max(1, total),
        forwarded=max(1, after),
        sent_tokens=scaled,
        fixed=base,
        estimates=made,
        sent_estimates=each,
        estimate_fixed=fixed,
        scale=scale,
    )


def _scaled(
    sent: Reading,
    edits: Sequence[FrozenEdit],
    scaled: Sequence[int],
    estimates: Sequence[int],
    scale: Scale,
) -> int:
    """The provider's tokens of a history with edits laid over it.

    What is left of a message is taken to have as many tokens per estimated one as it had whole.
    """
    edited = {edit.message for edit in edits}
    each = zip(sources(sent.api, sent.request, edits), estimates, strict=True)
    return sum(
        scale.of(estimate, at) if at is None or at in edited else scaled[at]
        for at, estimate in each
    )


def notes_of(sent: Reading, edits: Sequence[FrozenEdit], estimates: Sequence[int]) -> int:
    """The uncorrected estimate of the messages that take the place of several.

    Args:
        sent: as the client sent it.
        edits: that are laid over it.
        estimates: of the messages that this makes.
    """
    each = zip(sources(sent.api, sent.request, edits), estimates, strict=True)
    return sum(tokens for at, tokens in each if at is None)


def plan_step(
    laid: Laid,
    assessment: Assessment,
    thresholds: Thresholds,
    known: Known,
    seed: bytes,
    market: Market | None = None,
    summaries: Sequence[Summary] = (),
    births: Births | None = None,
) -> Step | str:
    """The next step, checked and finished, or in words why none is taken ("" if none is due).

    Where there is a market, the step says what it is likely to save. Where there are summaries of
    stretches, they are tried first; what they do not achieve is done without them.

    Raises:
        Broken: the step does not hold what it must.
    """
    if not calls_for_step(assessment.level):
        return ""
    forced = is_forced(assessment.forwarded, assessment.limit, thresholds)
    if market is not None and not forced and _never_pays(market):
        return "within the window, and nobody knows this model's prices: a step may cost more"
    reduced = _all_births(laid, births)
    laid, assessment = _as_born(laid, assessment, reduced, known)
    conversation = conversation_of(laid, assessment, known)
    messages = conversation.messages
    if unpaired(messages):
        return "the client's own tool calls and results do not match"
    step = _first_good(laid, assessment, thresholds, known, seed, conversation, summaries)
    if isinstance(step, Step) and reduced:
        step = _with_births(step, laid, reduced)
    if market is None or isinstance(step, str):
        return step
    step, at_once = _priced(laid, assessment, thresholds, messages, step, market)
    if forced or not market.must_pay or market.cache is Cache.COLD or at_once.pays:
        return step
    return (
        "within the window, and a step would not pay for itself: breaking the cache costs "
        f"${at_once.price:.4f}, {at_once.turns} turns save ${at_once.saving:.4f}"
    )


def _all_births(laid: Laid, births: Births | None) -> Mapping[int, Born]:
    """The messages with results that were reduced at birth, those before the entry's too."""
    if births is None or laid.found is None or laid.found.entry.born is None:
        return {}
    return births.of(laid.sent, laid.found.entry.born + 1)


def _as_born(
    laid: Laid, assessment: Assessment, births: Mapping[int, Born], known: Known
) -> tuple[Laid, Assessment]:
    """The same as if the client had sent what was reduced at birth so itself.

    A step is planned on that, and judged by it: so what was reduced stays so, and counts so.
    """
    if not births:
        return laid, assessment
    sent = replace(with_births(laid.sent, births), links=laid.sent.links)
    each = counts_of(sent, known)
    scale, told = assessment.scale, assessment.sent_tokens
    scaled = tuple(
        scale.of(tokens, at) if at in births else told[at] for at, tokens in enumerate(each)
    )
    base = replace(assessment, sent_tokens=scaled, sent_estimates=each)
    return replace(laid, sent=sent), base


def _with_births(step: Step, laid: Laid, births: Mapping[int, Born]) -> Step:
    """The step for what the client really sends: its edits, and before the last of them births."""
    planned = step.entry.edits
    at = home(step.entry, laid.found)
    changed = {(edit.message, edit.part) for edit in planned}
    folded = {edit.message for edit in planned if edit.part == WHOLE}
    own = {(edit.message, edit.part): edit for edit in edits_of(births)}
    edits = [
        msgspec.structs.replace(edit, digest=own[edit.message, edit.part].digest)
        if (edit.message, edit.part) in own
        else edit
        for edit in planned
    ]
    edits += [
        edit
        for place, edit in own.items()
        if edit.message <= at and place not in changed and edit.message not in folded
    ]
    ordered = tuple(sorted(edits, key=lambda edit: (edit.message, edit.part)))
    return replace(step, entry=msgspec.structs.replace(step.entry, edits=ordered))


def conversation_of(laid: Laid, assessment: Assessment, known: Known) -> Conversation:
    """The client's history as a strategy sees it."""
    api, sent = laid.sent.api, laid.sent.request
    return Conversation(
        messages=known.messages(api, sent, laid.sent.facts),
        tokens=assessment.sent_estimates,
        fixed=assessment.estimate_fixed,
        frozen=laid.found.entry.edits if laid.found else (),
        weigh=lambda message, at: known.weigh(laid.sent.family, message),
        shown=lambda part, at: media_in(sent.raw(at)[slice(*part.span)]),
    )


def _first_good(
    laid: Laid,
    assessment: Assessment,
    thresholds: Thresholds,
    known: Known,
    seed: bytes,
    conversation: Conversation,
    summaries: Sequence[Summary],
) -> Step | str:
    """The step with the new summaries, else with those that stand, else without any.

    Those that stand are given up only where the request would not fit otherwise.

    Raises:
        Broken: the last of them does not hold what it must.
    """
    room = room_for(assessment, thresholds)
    old = standing(conversation.frozen)
    may_drop = is_forced(assessment.forwarded, assessment.limit, thresholds)
    tried = [together(old, summaries)] if summaries else []
    tried += [old, ()] if old and may_drop else [old]
    for at, these in enumerate(tried):
        last = at == len(tried) - 1
        try:
            edits = condensed(conversation, room, these)
            step = _finish(laid, assessment, known, seed, conversation.messages, edits)
        except Broken:
            if last:
                raise
            continue
        if isinstance(step, Step) and (last or not may_not_fit(step.entry.after, assessment.limit)):
            return replace(step, summarised=bool(summaries) and at == 0)
    return step


def _never_pays(market: Market) -> bool:
    return market.must_pay and not market.known and market.cache is not Cache.COLD


def _priced(
    laid: Laid,
    assessment: Assessment,
    thresholds: Thresholds,
    messages: Sequence[Message],
    step: Step,
    market: Market,
) -> tuple[Step, Forecast]:
    """The same step with what it leaves in the cache and what it is likely to save.

    And what it saves if taken at once, and not where the model's window will force it.
    """
    same = zip(laid.forwarded.links, step.forwarded.links, strict=False)
    count = next((at for at, (old, new) in enumerate(same) if old != new), 0)
    after, fixed = step.entry.after, assessment.fixed
    part = sum(step.estimates[:count]) / max(1, sum(step.estimates))
    shared = min(after, fixed + round(part * max(0, after - fixed)))
    own = [message.role == "assistant" for message in messages]
    each = assessment.sent_tokens
    course = course_of(each, own)
    full = int(thresholds.critical * assessment.limit)
    sooner = until_full(course, full, assessment.forwarded)
    new = max(0, min(newest_of(each, own), after - shared))
    cut = Cut(assessment.forwarded, after, shared, new)
    brings = forecast(cut, course, market.cache, market.rates) if market.known else None
    at_once = forecast(cut, sooner, market.cache, market.rates)
    return replace(step, shared=shared, forecast=brings), at_once


def room_for(assessment: Assessment, thresholds: Thresholds) -> Room:
    """The room in uncorrected tokens, which are what a strategy counts in.

    The provider's tokens per estimated one are taken in coarse steps, upwards: so two proxies that
    learned a little more or less of them by now plan the same.
    """
    room, limit = assessment.room, assessment.limit
    forced = may_not_fit(assessment.forwarded, limit)
    estimate = assessment.estimate_fixed + sum(assessment.estimates)
    ratio = math.ceil(assessment.forwarded / max(1, estimate) / _COARSE) * _COARSE
    fits = int(limit * SURE_TO_FIT / ratio) if forced else None
    target = thresholds.target * room / ratio
    most = (thresholds.warning - WORTHWHILE - _CLEARLY) * room / ratio
    return Room(int(target), fits, int(_FURTHER * target), int(max(target, most)))


def _finish(
    laid: Laid,
    assessment: Assessment,
    known: Known,
    seed: bytes,
    messages: Sequence[Message],
    edits: Sequence[FrozenEdit],
) -> Step | str:
    """Make the body, read it again as the provider will, and check it."""
    held = laid.found.entry.edits if laid.found else ()
    if not edits or tuple(edits) == held:
        return "nothing more may be shortened: what must stay fills the window"
    sent = laid.sent
    made = sent.api.read(rewritten(sent.api, sent.request, edits))
    # By the result's own bytes: what of them was read before has the same SHA-256.
    forwarded = read(sent.api, sent.family, made, seed, known)
    after = known.messages(sent.api, made, forwarded.facts)
    forced = may_not_fit(assessment.forwarded, assessment.limit)
    shortened = {(edit.message, edit.part) for edit in held}
    fault = broken(
        messages, after, typed=not forced, in_turn=bool(sent.api.between), held=shortened
    )
    if fault:
        raise Broken(fault)
    estimates = known.count(sent.api, sent.family, made, forwarded.facts)
    total = assessment.fixed + _scaled(
        sent, edits, assessment.sent_tokens, estimates, assessment.scale
    )
    if not is_worthwhile(assessment.forwarded, total, assessment.room, assessment.limit):
        if total > assessment.limit:
            return f"what must stay does not fit: {total:,} of {assessment.limit:,} tokens"
        return "a step would free too little to be worth breaking the provider's cache"
    entry = Entry(
        edits=tuple(edits),
        step=(laid.found.entry.step if laid.found else 0) + 1,
        before=assessment.forwarded,
        after=total,
        level=assessment.level.value,
        earlier=_earlier(laid),
        born=laid.found.entry.born if laid.found else None,
        since=_since(messages, edits),
    )
    tokens = assessment.sent_tokens
    changes = changes_of(messages, tokens, edits, held, known, sent.family)
    return Step(entry, forwarded, estimates, changes)


def _earlier(laid: Laid) -> tuple[bytes, ...]:
    if laid.found is None:
        return ()
    return (*laid.found.entry.earlier, laid.sent.links[laid.found.at])


def _since(messages: Sequence[Message], edits: Sequence[FrozenEdit]) -> int:
    """The message that has to follow what edits remove, since it began the next turn; else 0."""
    if not any(edit.part != WHOLE and edit.text is None for edit in edits):
        return 0
    return max(0, turn_started(messages, folded_by(edits)))


def changes_at_birth(laid: Laid, assessment: Assessment) -> tuple[Change, ...]:
    """The results that are reduced behind what is frozen, for people to read."""
    if not laid.births:
        return ()
    answer = _last_answer(laid.sent)
    # A note may stand for several messages, but behind the last one all is as it was.
    shift = len(assessment.estimates) - len(assessment.sent_tokens)
    found = []
    for at, born in sorted(laid.births.items()):
        before = assessment.sent_tokens[at]
        after = assessment.scale.of(assessment.estimates[at + shift], at)
        for edit, stood in zip(born.edits, born.before, strict=True):
            change = Change(
                what="birth",
                first=at,
                last=at,
                kind=Kind.RESULT.value,
                tokens_before=before // len(born.edits),
                tokens_after=after // len(born.edits),
                before=stood,
                after=(edit.text or "")[:EXCERPT],
                new=answer is not None and at > answer,
            )
            found.append(change)
    return tuple(found)


def changes_of(
    messages: Sequence[Message],
    tokens: Sequence[int],
    edits: Sequence[FrozenEdit],
    held: Sequence[FrozenEdit],
    known: Known,
    family: Family,
) -> tuple[Change, ...]:
    """The edits for people to read: the newest first come, the list and each excerpt bounded."""
    old = frozenset(held)
    shown = [at for at, edit in enumerate(edits) if edit.text is not None or edit.part != WHOLE]
    shown.sort(key=lambda at: edits[at] in old)
    return tuple(
        _change(messages, tokens, at, edits, edits[at] not in old, known, family)
        for at in shown[:_SHOWN]
    )


def _change(
    messages: Sequence[Message],
    tokens: Sequence[int],
    at: int,
    edits: Sequence[FrozenEdit],
    new: bool,
    known: Known,
    family: Family,
) -> Change:
    edit = edits[at]
    text = edit.text or ""
    if edit.part == WHOLE:
        last = edit.message
        while at + 1 < len(edits) and edits[at + 1].part == WHOLE and edits[at + 1].text is None:
            at, last = at + 1, edits[at + 1].message
        stretch = range(edit.message, last + 1)
        before = "\n".join(part.text for i in stretch for part in messages[i].parts)
        return Change(
            what="fold",
            first=edit.message,
            last=last,
            kind=f"{len(stretch)} messages",
            tokens_before=sum(tokens[i] for i in stretch),
            tokens_after=known.weigh(family, said(text)),
            before=before[:_EXCERPT],
            after=text[:_EXCERPT],
            new=new,
        )
    part = messages[edit.message].parts[edit.part]
    alone = Message("user", (part,), b"")
    return Change(
        what="drop" if edit.text is None else "stub",
        first=edit.message,
        last=edit.message,
        kind=part.kind.value,
        tokens_before=known.weigh(family, alone),
        tokens_after=0 if edit.text is None else known.weigh(family, said(text)),
        before=(part.text or with_images(part))[:_EXCERPT],
        after=text[:_EXCERPT],
        new=new,
    )
