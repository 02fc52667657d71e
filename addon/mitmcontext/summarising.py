"""Whether a request's conversation is to be summarised, what to ask, and what that may cost.

As in `pipeline`, values come in and values go out; asking is the business of `proxy/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.cost import (
    Cache,
    Course,
    Cut,
    Forecast,
    Rates,
    course_of,
    forecast,
    until_full,
)
from mitmcontext.condense.summaries import plan as summaries
from mitmcontext.condense.summaries.plan import SummaryPlan, Wanted
from mitmcontext.condense.summaries.prompts import Question
from mitmcontext.condense.summaries.selection import (
    TRUNCATION,
    content_type,
    select_optimal_strategy,
)
from mitmcontext.condense.units import unpaired
from mitmcontext.known import Known
from mitmcontext.pipeline import Assessment, Laid, Market, conversation_of, room_for
from mitmcontext.values import Message
from mitmcontext.wire.asking import Prompt

AUTO: Final = "auto"
"""The strategy is chosen by the specification's rule."""

_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Way:
    """What to ask, and in which form, and what that costs at the most in dollars.

    Behind the conversation there is one question; else those of the plan's pieces.
    """

    plan: SummaryPlan
    behind: bytes | None
    price: float


def summary_plan(
    laid: Laid,
    assessment: Assessment,
    thresholds: Thresholds,
    known: Known,
    wanted: Wanted,
    market: Market,
    within: int | None = None,
) -> SummaryPlan | str:
    """What to ask so that the next step has summaries, or in words why nothing ("" if not due).

    Args:
        laid: the request.
        assessment: of it.
        thresholds: of the levels.
        known: what is known of messages.
        wanted: by the user; the strategy may be AUTO.
        market: what tokens cost, and whether a step has to pay for itself.
        within: ask only if warning is likely to be reached in so many turns. None: it is reached.
    """
    conversation = conversation_of(laid, assessment, known)
    messages = conversation.messages
    course = _course(assessment, messages)
    warning = int(thresholds.warning * assessment.room)
    ahead = max(0, warning - assessment.forwarded)
    if within is not None and ahead > course.growth * within:
        return ""
    if unpaired(messages):
        return "the client's own tool calls and results do not match"
    strategy = wanted.strategy
    if strategy == AUTO:
        share = max(assessment.forwarded / assessment.room, thresholds.warning)
        content = content_type(messages)
        chosen = select_optimal_strategy(share, len(messages), content, warning=thresholds.warning)
        strategy = chosen or TRUNCATION
    if strategy == TRUNCATION:
        return "the strategy is smart_truncation"
    if market.must_pay and not _pays(assessment, thresholds, course, market):
        return "within the window, and a step would not pay for itself"
    room = room_for(assessment, thresholds)
    estimate = assessment.estimate_fixed + sum(assessment.estimates)
    more = int(ahead * estimate / max(1, assessment.forwarded))
    return summaries.plan(conversation, room, wanted._replace(strategy=strategy), more)


def _course(assessment: Assessment, messages: Sequence[Message]) -> Course:
    own = [message.role == "assistant" for message in messages]
    return course_of(assessment.sent_tokens, own)


def _pays(assessment: Assessment, thresholds: Thresholds, course: Course, market: Market) -> bool:
    """Whether a step down to the target is likely to pay for itself once warning is reached."""
    full = int(thresholds.critical * assessment.limit)
    before = max(assessment.forwarded, int(thresholds.warning * assessment.room))
    after = int(thresholds.target * assessment.room)
    cut = Cut(before, min(before, after), assessment.fixed, min(course.growth, after))
    sooner = until_full(course, full, before)
    found: Forecast = forecast(cut, sooner, market.cache, market.rates)
    return market.cache == Cache.COLD or found.pays


def way_to_ask(
    plan: SummaryPlan, laid: Laid, assessment: Assessment, rates: Rates, *, model: str, cached: bool
) -> Way:
    """The cheaper form of a plan's questions.

    Args:
        plan: what to ask.
        laid: the request that the answer to "behind" builds on.
        assessment: of it.
        rates: of the model that is asked.
        model: its name, if it is not the request's own.
        cached: whether the provider has the conversation in its cache.
    """
    questions = list(plan.pieces)
    # What is likely to be asked once those are answered.
    joined = plan.then(["word " * piece.size for piece in plan.pieces])
    questions += [joined] if joined is not None else []
    price = sum(price_of(plan.tokens(one), one, rates) for one in questions)
    api, whole = laid.sent.api, plan.whole
    if api.asking is None or model:
        return Way(plan, None, price)
    asked = plan.tokens(whole)
    scale = assessment.forwarded / max(1, assessment.estimate_fixed + sum(assessment.estimates))
    size = assessment.forwarded + int(asked * scale)
    if size + whole.limit > assessment.limit:
        return Way(plan, None, price)
    read = assessment.forwarded if cached else 0
    at = rates.at(size)
    behind_price = (
        read * at.cache_read
        + (size - read) * max(at.input, at.cache_write)
        + whole.limit * at.output
    ) / _MILLION
    body = None
    if behind_price <= price:
        request = laid.forwarded.request
        prompt = prompt_of(whole, request.model)
        body = api.asking.behind(request, prompt)
    return Way(plan, body, price if body is None else behind_price)


def prompt_of(question: Question, model: str) -> Prompt:
    """A question as an API is asked it."""
    return Prompt(model, question.system, question.prompt, question.limit)


def price_of(tokens: int, question: Question, rates: Rates) -> float:
    """What a question of so many tokens costs at the most, in dollars."""
    at = rates.at(tokens)
    return (tokens * at.input + question.limit * at.output) / _MILLION
