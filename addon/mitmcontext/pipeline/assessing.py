"""Count what was sent and what is to be forwarded, and say how full the window is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from mitmcontext.condense.assess import (
    SURE_TO_FIT,
    WORTHWHILE,
    Thresholds,
    level_within,
    may_not_fit,
)
from mitmcontext.condense.conversation import Room
from mitmcontext.condense.entries import FrozenEdit
from mitmcontext.known import Known
from mitmcontext.models.windows import Window
from mitmcontext.pipeline.reading import Laid, Reading
from mitmcontext.rewrite import sources
from mitmcontext.tokens.calibration import Scale
from mitmcontext.values import Level

# What a request costs beside its bytes: the provider's own wrapping of tools and messages. The
# largest constants known are below 1,000 tokens.
_BESIDE_BYTES: Final = 2_000
# What may count for more tokens than it has bytes in the body: blocks whose type begins with
# image or video, or is document, file, input_audio, input_file, computer_screenshot or container;
# inlineData and fileData. No two branches begin alike, which is twice as fast as a list of words.
_MEDIA: Final = re.compile(
    rb'"(?:i(?:mage|nline_?[dD]ata|nput_(?:audio|image|file)")|video|f(?:ile_?[dD]ata|ile")'
    rb'|document"|co(?:mputer_screenshot|ntainer)")'
)
# Steps of the ratio that a plan is made with.
_COARSE: Final = 0.1
# A step goes so far below the target where that leaves some old content: each one costs the
# provider's cache, and on recorded sessions what goes last is seldom needed again.
_FURTHER: Final = 0.5
# A step frees so much more of the room than what makes it worthwhile: estimates are a little off.
_CLEARLY: Final = 0.02


class Assessment(msgspec.Struct, frozen=True):
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


def counts_of(reading: Reading, known: Known) -> tuple[int, ...]:
    """The estimated tokens of each message."""
    api, family, request = reading.api, reading.family, reading.request
    return known.count(api, family, request, reading.facts, reading.counted)


def is_surely_safe(laid: Laid, window: Window, thresholds: Thresholds, budget: int = 0) -> bool:
    """Whether size alone proves that nothing needs to be done, so that counting can wait.

    A tokenizer of bytes never makes more tokens than there are bytes.
    """
    request = laid.sent.request
    room = window.room(request.max_output)
    return laid.found is None and surely_fits(request.body, room, thresholds, budget)


def surely_fits(body: bytes, room: int, thresholds: Thresholds, budget: int = 0) -> bool:
    """Whether a body cannot fill as much of the room, in tokens, as would call for something."""
    small = len(body) + _BESIDE_BYTES < thresholds.caution * within(room, budget)
    return small and _MEDIA.search(body) is None


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
    scaled = scale.each(each, sent.request.spans)
    base = round(fixed + scale.offset)
    total = base + sum(scaled)
    after = total
    if laid.found is not None:
        after = base + scaled_total(sent, laid.edits, scaled, made, scale)
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


def scaled_total(
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
