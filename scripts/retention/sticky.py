"""Every turn of every conversation, as a proxy meets them."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lib.progress import Progress
from loopback import rules_anthropic, rules_openai
from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.units import kept
from mitmcontext.wire.anthropic import MESSAGES
from retention.policies import LARGE, POLICIES, Forwarded, OursWithinBudget, Played
from retention.probes import Json, Recorded, said, weight_of

READ, WRITE = 0.1, 1.25


class PromptCache:
    """What an account has sent before, by whole messages."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def price(self, keys: Iterable[bytes], tokens: Iterable[int]) -> float:
        """The price of a request in plain tokens, and remember it."""
        link, warm, total = b"", True, 0.0
        for key, weight in zip(keys, tokens, strict=True):
            link = hash((link, key)).to_bytes(8, "big", signed=True)
            warm = warm and link in self._known
            self._known.add(link)
            total += weight * (READ if warm else WRITE)
        return total


def sticky(
    found: Sequence[Recorded], windows: Sequence[int], policies: Sequence[str], verbose: bool
) -> list[Json]:
    """For each corpus, policy and window: every turn of every conversation."""
    outs: dict[tuple[str, str, int], Played] = defaultdict(Played)
    progress = Progress("sticky", len(found) * len(windows))
    for number, (window, one) in enumerate((w, o) for w in windows for o in found):
        for policy in policies:
            out = outs[one.corpus, policy, window]
            _play(one, window, POLICIES[policy](one, window, out), out)
        progress(number + 1)
    if verbose:
        for out in outs.values():
            print("\n".join([*out.refused[:20], *out.broken[:20]]), file=sys.stderr)
    return [
        {"corpus": corpus, "policy": policy, "window": window, **out.figures()}
        for (corpus, policy, window), out in outs.items()
    ]


def _play(one: Recorded, window: int, policy: Callable[[int], Forwarded], out: Played) -> None:
    weigh, limits = weight_of(one), Thresholds()
    cache_now, cache_before = PromptCache(), PromptCache()
    before: list[bytes] = []
    memory: Any = rules_anthropic.Memory() if one.api is MESSAGES else rules_openai.Memory()
    for cut in one.cuts:
        made = policy(cut)
        weights = [weigh(message) for message in made.messages]
        whole, total = sum(one.tokens[:cut]), sum(weights)
        keys = [message.digest for message in made.messages]
        out.turns += 1
        out.tally.sent += whole
        out.tally.forwarded += total
        out.cost += cache_now.price(keys, weights)
        out.cost_before += cache_before.price(
            (message.digest for message in one.messages[:cut]), one.tokens[:cut]
        )
        out.steps += made.stepped
        if made.freed:
            out.freed.append(made.freed)
            small = made.level == "warning" and made.freed < 0.15 * window
            out.too_small += small
        room = LARGE if isinstance(policy, OursWithinBudget) else window
        out.misfits += total > room
        out.could_fit += total > room >= _least(one, cut)
        out.unexplained += keys[: len(before)] != before and not made.stepped
        before = keys
        if made.body:
            refusal = _refusal(one, made.body, memory)
            out.refused += [f"{one.name} {cut}: {refusal}"] if refusal else []
        probes = [probe for probe in one.probes if probe.use == cut]
        if probes and whole >= limits.caution * window:
            text = "\n".join(map(said, made.messages))
            out.tally.judge(probes, text, "\n".join(map(said, one.messages[:cut])))
            out.tally.judge_typed(one.messages[:cut], text)


def _least(one: Recorded, cut: int) -> int:
    """The tokens of what stays in any case."""
    messages = one.messages[:cut]
    stay = kept(messages)
    whole = stay.messages | {at for at, _ in stay.parts}
    return sum(one.tokens[at] for at in whole)


def _refusal(one: Recorded, body: bytes, memory: Any) -> str:
    rules: Any = rules_anthropic if one.api is MESSAGES else rules_openai
    refusal = rules.check(json.loads(body), memory, length=False)
    return refusal.message if refusal else ""
