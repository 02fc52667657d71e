"""The content view of a request: figures, then what was done and why, then message by message.

Excerpts are the words of clients and of whatever their tools read; they were made safe to show when
they were recorded.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from mitmproxy import contentviews, http
from mitmproxy.flow import Flow

from mitmcontext.proxy.listing import Row
from mitmcontext.proxy.messages import conversation
from mitmcontext.proxy.page import dollars
from mitmcontext.proxy.recorded import KEY, from_metadata, money_in, reported_in
from mitmcontext.proxy.safe import neutral
from mitmcontext.proxy.words import (
    DONE,
    MARKS,
    before_step,
    fullness,
    joined,
    met,
    noun,
    percent,
    short,
    summary,
)
from mitmcontext.values import Action, Change, Money, Outcome

WIDTH: Final = 80
"""What mitmweb shows beside its flow list in a window of usual size."""

MAX_LINES: Final = 500
"""mitmproxy shows 512 lines of a view unless told otherwise."""

_CHANGE_LINES = 30  # Lines that show one change, while there is room ...
_FEWER_LINES = 10  # ... and where there is not, before the small changes go without.
_MAP_LINES = 200  # Lines that list the messages.
_ROWS = 3  # Rows that one long line may fill.
_BAR = 40
_LARGEST_PRETTY = 1 << 20  # Bytes that are made pretty at once.

# What is shown in the place of the JSON: there is more to tell of these.
_TOLD: Final = frozenset(MARKS) - {Action.LEFT_ALONE}

_TITLES = {
    Action.LEFT_ALONE: "Left alone: forwarded as the client sent it",
    Action.UNDER_THRESHOLD: "Forwarded as the client sent it",
    Action.NO_STEP: "Forwarded as the client sent it: full, but no step would have helped",
    Action.CONDENSED: "Condensed",
    Action.REAPPLIED: "Earlier steps re-applied, nothing new",
    Action.OBSERVED: "Observed: forwarded as the client sent it, but could have been condensed",
    Action.FAILED_OPEN: "Failed open: a new step was due and could not be taken",
}


def explanation(flow: Flow, rows: Sequence[Row] = ()) -> str:
    """The page of a flow as text, with its messages where they are given."""
    metadata = flow.metadata
    kept = metadata.get(KEY)
    outcome = from_metadata(kept)
    if outcome is None or not isinstance(kept, Mapping):
        return "mitmcontext has not looked at this flow: it is no request of an API that it knows"
    in_all = kept.get("changes_in_all")
    in_all = in_all if isinstance(in_all, int) else len(outcome.changes)
    return render(outcome, in_all, money_in(metadata), reported_in(metadata), rows, flow.id)


class ContextView(contentviews.Contentview):
    """What was counted in a request and what was done to it, instead of its JSON."""

    name = KEY
    syntax_highlight: contentviews.SyntaxHighlight = "none"

    def __init__(self, rows: Callable[[http.HTTPFlow], Sequence[Row]] | None = None) -> None:
        self._rows = rows

    def prettify(self, data: bytes, metadata: contentviews.Metadata) -> str:
        """The page for this flow."""
        if metadata.flow is None or from_metadata(metadata.flow.metadata.get(KEY)) is None:
            raise ValueError("mitmcontext has not looked at this request")
        flow = metadata.flow
        rows = self._rows(flow) if self._rows and isinstance(flow, http.HTTPFlow) else ()
        return explanation(flow, rows)

    def render_priority(self, data: bytes, metadata: contentviews.Metadata) -> float:
        """Before JSON where there is something to see, behind it where the body went untouched."""
        flow = metadata.flow
        if flow is None or KEY not in flow.metadata:
            return -1
        if metadata.http_message is not getattr(flow, "request", None):
            return -1
        kept = flow.metadata[KEY]
        action = kept.get("action") if isinstance(kept, Mapping) else None
        if action not in list(Action):
            return -1
        return 2.0 if action in _TOLD else 0.5


class OriginalView(contentviews.Contentview):
    """A shortened request's body as the client sent it; shown where somebody chooses it."""

    name = f"{KEY}-original"
    syntax_highlight: contentviews.SyntaxHighlight = "yaml"

    def __init__(self, original: Callable[[http.HTTPFlow], bytes | None]) -> None:
        self._original = original

    def prettify(self, data: bytes, metadata: contentviews.Metadata) -> str:
        """The body as JSON, as mitmproxy shows it."""
        flow = metadata.flow
        asked = isinstance(flow, http.HTTPFlow) and metadata.http_message is flow.request
        found = self._original(flow) if isinstance(flow, http.HTTPFlow) and asked else None
        if found is None:
            raise ValueError("no other body than this one is kept")
        if len(found) > _LARGEST_PRETTY:
            start = neutral(found[:_LARGEST_PRETTY].decode("utf-8", "replace"))
            return f"{len(found):,} bytes; it begins so, the command gives all of it:\n{start}"
        shown: str = contentviews.registry["json"].prettify(found, metadata)
        return shown

    def render_priority(self, data: bytes, metadata: contentviews.Metadata) -> float:
        """Never by itself."""
        return -1


def render(
    outcome: Outcome,
    changes_in_all: int | None = None,
    money: Money | None = None,
    reported: tuple[int, int] | None = None,
    rows: Sequence[Row] = (),
    flow: str = "",
) -> str:
    """The page that the content view shows.

    Args:
        outcome: what became of the request.
        changes_in_all: how many there are, beside those that were kept.
        money: what it cost, once the provider has said what it used.
        reported: the estimate of what went out and the provider's own count, in tokens.
        rows: the client's messages.
        flow: mitmproxy's id of it, by which commands are told which flow is meant.
    """
    head = [*_head(outcome), *_account(outcome, money, reported)]
    left_out = max(0, (changes_in_all or 0) - len(outcome.changes))
    lines = [*head, *_changes(outcome, MAX_LINES - len(head), left_out, rows, flow)]
    # mitmweb gives a line with nothing in it no height.
    return "\n".join(line.rstrip() or " " for line in lines[:MAX_LINES]) + "\n"


def _head(outcome: Outcome) -> Iterator[str]:
    done = summary(change for change in outcome.changes if change.new)
    step = f"step {outcome.steps}" if outcome.action == Action.CONDENSED else ""
    title = _TITLES[outcome.action]
    if outcome.action == Action.REAPPLIED and not outcome.steps:
        title = "Forwarded with results reduced when they were new"
    yield joined(title, step, done)
    yield ""
    if outcome.room and outcome.sent:
        yield _bar("as sent", outcome.sent, outcome.room)
        if outcome.forwarded != outcome.sent:
            label = "would be" if outcome.action == Action.OBSERVED else "forwarded"
            yield _bar(label, outcome.forwarded, outcome.room)
        yield ""


def _account(
    outcome: Outcome, money: Money | None, reported: tuple[int, int] | None
) -> Iterator[str]:
    yield from _row("why", outcome.reason)
    if outcome.room and outcome.action != Action.LEFT_ALONE:
        yield from _row("level", _level(outcome))
    if outcome.sent:
        saved = outcome.sent - outcome.forwarded
        share = f", {percent(saved, outcome.sent)} less" if saved > 0 else ""
        arrow = f" → {outcome.forwarded:,}" if saved else ""
        yield from _row("tokens", f"{outcome.sent:,}{arrow} (estimated{share})")
    if reported is not None:
        estimated, told = reported
        error = 100 * (estimated / told - 1)
        off = "right" if round(error, 1) == 0 else f"{abs(error):.1f} % too {_way(error)}"
        yield from _row("provider", f"counted {told:,}; the estimate of {estimated:,} was {off}")
    if outcome.freed:
        yield from _row("step", f"number {outcome.steps}, freed {outcome.freed:,} tokens")
    elif outcome.steps:
        yield from _row("steps", f"{outcome.steps:,} so far in this conversation")
    yield from _row("money", _spent(outcome, money))
    if outcome.room:
        yield from _row("window", f"{outcome.room:,} tokens for input")
    yield from _row("model", joined(outcome.model, outcome.api))
    if outcome.messages:
        yield from _row("messages", f"{outcome.messages:,} in the client's request")
    waited = f", and waited {outcome.waited:,.0f} ms for a model" if outcome.waited else ""
    yield from _row("took", f"{outcome.milliseconds:,.1f} ms{waited}")
    yield ""


def _way(error: float) -> str:
    return "high" if error > 0 else "low"


def _spent(outcome: Outcome, money: Money | None) -> str:
    """What the request cost and saved, and what its step is expected to save."""
    said = []
    if money is not None and not money.known:
        said.append("the prices of this model are not known")
    elif money is not None:
        would = "would save" if outcome.action == Action.OBSERVED else "saved"
        said.append(f"cost {dollars(money.cost)}")
        if money.saved or money.saved_so_far:
            so_far = f"{dollars(money.saved_so_far)} so far in this conversation"
            said.append(
                f"{would} {dollars(money.saved)} (estimated), {so_far}, "
                f"of {dollars(money.cost_so_far)}"
            )
    if outcome.predicted is not None:
        said.append(f"the step is expected to save {dollars(outcome.predicted)} in the end")
    return "; ".join(said)


def _row(label: str, value: str) -> Iterator[str]:
    if value:
        first, *more = textwrap.wrap(value, WIDTH - 12) or [""]
        yield f"{label:<11} {first}"
        yield from (f"{'':<11} {line}" for line in more)


def _changes(
    outcome: Outcome, room: int, left_out: int, rows: Sequence[Row], flow: str
) -> Iterator[str]:
    """All changes in short, then each with its excerpts, newest step first, and all messages."""
    footer = list(_footer(outcome, left_out, flow))
    room -= len(footer)
    if outcome.changes:
        groups = list(_groups(outcome.changes))
        yield from groups
        room -= len(groups)
    messages = list(conversation(rows, outcome, _MAP_LINES, complete=not left_out))
    room -= len(messages)
    new = [change for change in outcome.changes if change.new]
    old = [change for change in outcome.changes if not change.new]
    if new:
        # What is new is told at length, but the rest is not to vanish behind it.
        page = list(_section(_new_title(outcome), new, room - min(len(old) + 3, room // 3)))
        yield from page
        room -= len(page)
    yield from messages
    if old:
        yield from _section("Done in earlier steps, and the same again now", old, room)
    yield from footer


def _footer(outcome: Outcome, left_out: int, flow: str) -> Iterator[str]:
    if left_out:
        yield f"{left_out:,} more changes are not shown."
    if outcome.action in (Action.CONDENSED, Action.REAPPLIED):
        yield f"As the client sent it: choose {KEY}-original as the view, or the command"
        yield f"context.original @{flow}"
    yield "The body that was forwarded: choose JSON or Raw as the view."


def _new_title(outcome: Outcome) -> str:
    if outcome.action == Action.OBSERVED:
        return "What would be done"
    return f"New in step {outcome.steps}" if outcome.action == Action.CONDENSED else "New"


def _groups(changes: Sequence[Change]) -> Iterator[str]:
    """One line per sort of change, what is new first."""
    groups: dict[tuple[str, str, bool], list[Change]] = {}
    for change in sorted(changes, key=lambda change: not change.new):
        groups.setdefault((noun(change), change.what, change.new), []).append(change)
    yield _ruled("What was done")
    for (_, _, new), members in groups.items():
        before = sum(change.tokens_before for change in members)
        after = sum(change.tokens_after for change in members)
        when = "" if new else "  earlier"
        yield f"  {summary(members):<36} {before:>9,} → {after:>7,} tokens{when}"
    yield ""


def _section(title: str, changes: Sequence[Change], room: int) -> Iterator[str]:
    """Each change, and of those that freed most as much of their excerpts as there is room for."""
    yield _ruled(title)
    shown = sorted(changes, key=lambda change: (change.first, change.last))[: max(1, room - 3)]
    if len(shown) < len(changes):
        yield f"… and {len(changes) - len(shown):,} more"
    room -= 3 + len(shown)
    lines = max(_FEWER_LINES, min(_CHANGE_LINES, room // len(shown) - 1))
    by_weight = sorted(shown, key=lambda change: change.tokens_after - change.tokens_before)
    told = {id(change) for change in by_weight[: max(0, room) // (lines + 1)]}
    blank = True
    for change in shown:
        if id(change) in told and not blank:
            yield ""
        yield _change_title(change)
        blank = id(change) in told
        if blank:
            yield from _difference(change.before, change.after, lines)
            yield ""
    if not blank:
        yield ""


def _change_title(change: Change) -> str:
    done = DONE.get(change.what, change.what)
    if noun(change) == "message":
        what = f"messages {change.first + 1} to {change.last + 1} · {done}"
    else:
        what = f"message {change.first + 1} · {change.kind} {done}"
    return f"{what} · {change.tokens_before:,} → {change.tokens_after:,} tokens"


def _difference(before: str, after: str, most: int) -> list[str]:
    """What went (-), what came (+) and what stayed, each run of lines as long as there is room."""
    old, new = before.split("\n"), after.split("\n")
    runs: list[list[str]] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for _, first, last, first_new, last_new in matcher.get_opcodes():
        if old[first:last] == new[first_new:last_new]:
            runs.append(_signed(" ", old[first:last]))
        else:
            runs += [_signed("-", old[first:last]), _signed("+", new[first_new:last_new])]
    runs = [run for run in runs if run]
    length = most
    while length > 2 and sum(min(len(run), length) for run in runs) > most:
        length -= 1
    rows = [row for run in runs for row in _cut(run, length)]
    return _cut(rows, most)


def _signed(sign: str, lines: Sequence[str]) -> list[str]:
    return [f"  {sign} {row}".rstrip() for line in lines if lines != [""] for row in _rows(line)]


def _rows(line: str) -> list[str]:
    """A line in rows that fit, broken between words, later ones indented."""
    whole = line.replace("\t", "    ").rstrip()
    if len(whole) <= WIDTH - 4:
        return [whole]
    return textwrap.wrap(
        whole, WIDTH - 4, subsequent_indent="  ", max_lines=_ROWS, placeholder=" …"
    )


def _cut(rows: list[str], most: int) -> list[str]:
    if len(rows) <= most:
        return rows
    return [*rows[: most - 1], f"{rows[most - 1][:4]:<4}… {len(rows) - most + 1} more"]


def _ruled(title: str) -> str:
    return f"── {title} ".ljust(WIDTH, "─")


def _bar(label: str, tokens: int, room: int) -> str:
    filled = min(_BAR, round(_BAR * tokens / room))
    bar = "█" * filled + "░" * (_BAR - filled)
    return f"{label:<11} {bar} {percent(tokens, room):>5}  {short(tokens)} of {short(room)}"


def _level(outcome: Outcome) -> str:
    if not (outcome.room and outcome.sent):
        return fullness(outcome)
    laid_over = " with the earlier steps re-applied" if outcome.sent != before_step(outcome) else ""
    return f"{outcome.level.value}, at {met(outcome)} of the window{laid_over}"
