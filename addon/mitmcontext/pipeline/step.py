"""The next step: planned on the client's whole history, finished, checked, and priced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mitmcontext.births import Births, Born, edits_of
from mitmcontext.condense.assess import (
    Thresholds,
    calls_for_step,
    is_forced,
    is_worthwhile,
    may_not_fit,
)
from mitmcontext.condense.conversation import Conversation, folded_by
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
from mitmcontext.condense.entries import WHOLE, Entry, FrozenEdit, are_same, home
from mitmcontext.condense.invariants import broken
from mitmcontext.condense.summaries.fold import Summary, condensed, standing, together
from mitmcontext.condense.thinking import turn_started
from mitmcontext.condense.units import unpaired
from mitmcontext.known import Known
from mitmcontext.pipeline.assessing import Assessment, counts_of, room_for, scaled_total
from mitmcontext.pipeline.changes import changes_of
from mitmcontext.pipeline.reading import Laid, Reading, read, with_births
from mitmcontext.rewrite import rewritten
from mitmcontext.values import Broken, Change, Message
from mitmcontext.wire.media import media_in


@dataclass(frozen=True, slots=True)
class Market:
    """What tokens cost, and what the provider's cache has of the conversation.

    `must_pay` says that a step which the model's window does not force has to pay for itself.
    """

    rates: Rates
    known: bool
    cache: Cache
    must_pay: bool = False


class Step(msgspec.Struct, frozen=True):
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
    if forced or not market.must_pay or market.cache == Cache.COLD or at_once.pays:
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
        replace(edit, digest=own[edit.message, edit.part].digest)
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
    return replace(step, entry=replace(step.entry, edits=ordered))


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
    return market.must_pay and not market.known and market.cache != Cache.COLD


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
    if not edits or are_same(edits, held):
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
    total = assessment.fixed + scaled_total(
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
