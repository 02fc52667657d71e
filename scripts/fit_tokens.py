#!/usr/bin/env python3
"""Fits the weights in families.toml to recorded requests, and says what became of them.

    scripts/fit_tokens.py [--data FILE] [--write]

Families of one kind are fitted together: they share most weights, and a family may deviate where
the recordings insist. All begin with figures that do not come from the recordings (documented
formats, round guesses), so that little data moves them little. The error is the relative one, of
which large ones count less than their square: recordings have mistakes. It needs nothing but
Python, since the systems are small: some dozen weights, a thousand requests.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

from mitmcontext.tokens.families import Family, all_families  # noqa: E402
from recorded import Case, cases, rows  # noqa: E402

TABLE = CHECKOUT / "addon" / "mitmcontext" / "tokens" / "families.toml"
Weights = dict[str, float]
Parameter = tuple[str, str]
"""A weight, and the family that it is for; "" for all of a kind."""

ROUNDS = 12
# At first all errors count alike, as nothing is known yet.
_PLAIN_ROUNDS = 3
# Errors beyond this count linearly.
_ODD = 0.005
# Below so many tokens an error is measured against this.
_SMALL = 60


@dataclass(frozen=True)
class Kind:
    """Families that are fitted together.

    Attributes:
        begin: the weights before anything is seen; only these are ever used.
        own: those that a family may have for itself; all others are shared.
        scale: how far a weight may be off, roughly; by default a fifth of itself.
        fixed: weights that are not fitted at all.
        begins: where single families begin, if not there.
        pull: a weight that is off by its scale costs what a request that is off by this share does.
        own_pull: the same, for what a family deviates.
    """

    begin: Weights
    own: frozenset[str] = frozenset()
    scale: Mapping[str, float] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    begins: Mapping[str, Weights] = field(default_factory=dict)
    pull: float = 0.1
    own_pull: float = 0.05

    def beginning(self, family: str) -> Weights:
        """The weights of a family before anything is seen."""
        return self.begin | self.begins.get(family, {})

    def reach(self, name: str) -> float:
        """The scale of a weight."""
        return self.scale.get(name) or max(abs(self.begin[name]) / 5, 0.05)


_CLAUDE: Weights = {
    "request": 3,
    "message": 4,
    "text": 1.1,
    "thinking": 1.1,
    "call": 20,
    "result": 20,
    "further": 40,
    "system": 0.5,
    "thinks": 27,
    "tools": 346,
    "tool": 12,
    "tool_text": 1.2,
    "any": -33,
    "none": 0,
    "strict": 100,
    "schema": 170,
    "schema_text": 1.2,
    "page": 1_600,
    "media": 1.5,
}
# "The new tokenizer may use up to 35 % more tokens" (Anthropic on 4.7).
_MORE = {
    name: round(_CLAUDE[name] * 1.3, 2) for name in ("text", "thinking", "tool_text", "schema_text")
}
# The length of the prompt that tools bring along, as Anthropic documents it: where the model is
# free to call them, and what it is more where it is not.
_CLAUDES: Mapping[str, Weights] = {
    "claude-3-opus": {"tools": 530, "any": -249},
    "claude-3-sonnet": {"tools": 159, "any": 76},
    "claude-3-haiku": {"tools": 264, "any": 76},
    "claude-3.5-haiku": {"tools": 264, "any": 76},
    "claude-opus-5": _MORE,
    "claude-new": _MORE,
}
_CLAUDE_OWN = frozenset({"tools", "any"})
_CLAUDE_SCALE = {
    "tools": 100,
    "any": 200,
    "none": 100,
    "strict": 100,
    "schema": 100,
    "system": 1,
    "further": 30,
}
_OPENAI: Weights = {
    "request": 3,
    "message": 4,
    "text": 1,
    "name": 1,
    "call": 5,
    "further": -5,
    "parallel": 21,
    "system": 4,
    "tools": 7,
    "tool_text": 1,
    "named": 7,
    "schema": 6,
    "schema_text": 1,
    "page": 800,
    "media": 1.5,
}
_REASONING = _OPENAI | {"request": 2, "tools": 9, "call": 10}
_OPENAI_FIXED = frozenset({"text", "message", "name", "tool_text", "schema_text", "further"})
# A page is its text and its picture: what one costs by the providers' pages, roughly. A second of
# sound is ten to thirty tokens, and some 16 KB.
_OPENAI_SCALE = {"request": 0.3, "tools": 30, "call": 3, "parallel": 8, "named": 3, "schema": 4}
_ITEMS = {"further": 0.0, "parallel": 0.0}
_OPEN: Weights = {
    "request": 5,
    "message": 4,
    "text": 1.02,
    "call": 5,
    "result": 5,
    "system": 1,
    "tools": 50,
    "tool": 8,
    "tool_text": 1,
    "any": 0,
    "none": 0,
    "schema": 0,
    "schema_text": 0.2,
    "thinking": 0,
    "page": 500,
    "media": 1.5,
}
_OPEN_SCALE = {
    "text": 0.05,
    "system": 1,
    "request": 100,
    "tools": 100,
    "any": 10,
    "none": 100,
    "schema": 10,
    "schema_text": 0.3,
    "thinking": 0.3,
    "tool": 5,
    "call": 8,
    "result": 8,
}
_GEMINI: Weights = {
    "request": 0,
    "message": 0,
    "text": 1.02,
    "call": 8,
    "result": 8,
    "tools": 0,
    "tool": 5,
    "tool_text": 0.7,
    "schema_text": 0,
    "thinking": 0,
    "sealed": 0.3,
    # Google: 258 tokens a page, 32 a second of sound.
    "page": 258,
    "media": 1.5,
}
_GEMINI_SCALE = {
    "text": 0.05,
    "request": 1,
    "message": 1,
    "call": 4,
    "result": 4,
    "tools": 15,
    "tool": 5,
    "schema_text": 0.1,
    "thinking": 0.5,
}

KINDS: Mapping[str, Kind] = {
    "claude": Kind(_CLAUDE, _CLAUDE_OWN, _CLAUDE_SCALE, begins=_CLAUDES),
    "openai": Kind(_OPENAI, frozenset({"tools", "call"}), _OPENAI_SCALE, _OPENAI_FIXED),
    "openai, reasoning": Kind(
        _REASONING, frozenset({"tools", "call"}), _OPENAI_SCALE, _OPENAI_FIXED
    ),
    "openai, items": Kind(
        _OPENAI | _ITEMS, frozenset({"tools", "call"}), _OPENAI_SCALE, _OPENAI_FIXED
    ),
    "openai, reasoning items": Kind(
        _REASONING | _ITEMS, frozenset({"tools", "call"}), _OPENAI_SCALE, _OPENAI_FIXED
    ),
    "gemini": Kind(_GEMINI, frozenset(_GEMINI), _GEMINI_SCALE, pull=0.01, own_pull=0.02),
    "open": Kind(_OPEN, frozenset(_OPEN), _OPEN_SCALE, pull=0.1, own_pull=0.01),
}


def kind_of(family: Family) -> str:
    """The kind that a family is of."""
    name = family.name
    if name.startswith("claude"):
        return "claude"
    if family.form == "typescript" and name != "gpt-oss":
        items = "items" if name.endswith(" responses") else ""
        reasoning = "reasoning" if name.startswith(("gpt-5", "o-series")) else ""
        return "openai" + (", " if items or reasoning else "") + f"{reasoning} {items}".strip()
    if name.startswith("gemini"):
        return "gemini"
    return "open"


def usable(case: Case) -> bool:
    """Whether a request may teach anything: text and tools, and nothing that is not in it."""
    return not (case.hidden or case.pictures or case.media or case.thinking)


def fitted(found: Iterable[Case], families: Iterable[Family]) -> dict[str, Weights]:
    """The weights of each family by its name, as these requests have them."""
    by_kind: defaultdict[str, list[Case]] = defaultdict(list)
    for case in found:
        if usable(case):
            by_kind[kind_of(case.family)].append(case)
    solved = {name: _solve(kind, by_kind[name]) for name, kind in KINDS.items()}
    weights = {}
    for family in families:
        name = kind_of(family)
        kind, moved = KINDS[name], solved[name]
        weights[family.name] = {
            weight: begin + moved.get((weight, ""), 0.0) + moved.get((weight, family.name), 0.0)
            for weight, begin in kind.beginning(family.name).items()
        }
    return weights


def _solve(kind: Kind, found: Sequence[Case]) -> dict[Parameter, float]:
    """How far each parameter moves from where it began."""
    alike = Counter((case.family.name, case.repo, case.shape, case.reported) for case in found)
    samples: list[Sample] = []
    for case in found:
        same = alike[case.family.name, case.repo, case.shape, case.reported]
        begin = kind.beginning(case.family.name)
        samples.append(
            (
                dict(_moves(kind, case)),
                case.reported - sum(n * begin.get(w, 0.0) for w, n in case.counts.items()),
                max(case.reported, _SMALL),
                1 / same**0.5,
            )
        )
    moved: dict[Parameter, float] = {}
    names = sorted({name for sample in samples for name in sample[0]})
    for at in range(ROUNDS if names else 0):
        moved = _step(kind, names, samples, moved, math.inf if at < _PLAIN_ROUNDS else _ODD)
    return moved


def _moves(kind: Kind, case: Case) -> Iterator[tuple[Parameter, float]]:
    for weight, number in case.counts.items():
        if number and weight in kind.begin and weight not in kind.fixed:
            yield (weight, ""), number
            if weight in kind.own:
                yield (weight, case.family.name), number


Sample = tuple[dict[Parameter, float], float, float, float]
"""Counts by parameter, what they must add up to, what an error is relative to, importance."""


def _step(
    kind: Kind,
    names: list[Parameter],
    samples: list[Sample],
    moved: Mapping[Parameter, float],
    odd: float,
) -> dict[Parameter, float]:
    """One round of least squares, in which what is off by more than `odd` counts less."""
    place = {name: at for at, name in enumerate(names)}
    size = len(names)
    matrix = [[0.0] * size for _ in names]
    right = [0.0] * size
    for name, at in place.items():
        pull = kind.own_pull if name[1] else kind.pull
        matrix[at][at] = (pull / kind.reach(name[0])) ** 2
    for counts, target, relative, importance in samples:
        error = abs(sum(n * moved.get(w, 0.0) for w, n in counts.items()) - target) / relative
        weight = importance / relative**2 * min(1.0, odd / max(error, 1e-9))
        listed = [(place[name], number) for name, number in counts.items()]
        for at, number in listed:
            right[at] += weight * number * target
            line = matrix[at]
            for other, beside in listed:
                line[other] += weight * number * beside
    return dict(zip(names, _solved(matrix, right), strict=True))


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss's elimination; the pulls keep the matrix regular."""
    size = len(right)
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(matrix[row][at]))
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        right[at], right[pivot] = right[pivot], right[at]
        for row in range(at + 1, size):
            factor = matrix[row][at] / matrix[at][at]
            if factor:
                line, above = matrix[row], matrix[at]
                for column in range(at, size):
                    line[column] -= factor * above[column]
                right[row] -= factor * right[at]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(matrix[at][column] * found[column] for column in range(at + 1, size))
        found[at] = (right[at] - known) / matrix[at][at]
    return found


def left_out(
    found: Sequence[Case],
    families: Sequence[Family],
    note: Callable[[int], None] = lambda _: None,
) -> dict[int, float]:
    """The estimate of each request by weights that its repository had no part in.

    By the request's place in `found`.
    """
    estimates = {}
    for done, repo in enumerate(sorted({case.repo for case in found})):
        weights = fitted((case for case in found if case.repo != repo), families)
        for at, case in enumerate(found):
            if case.repo == repo:
                own = replace(case.family, weights=weights[case.family.name])
                estimates[at] = case.estimated(own)
        note(done + 1)
    return estimates


def write(weights: Mapping[str, Weights]) -> None:
    """Put the weights into the table; everything else in it stays."""
    text = TABLE.read_text(encoding="utf-8")

    def put(match: re.Match[str]) -> str:
        found = weights.get(match["name"])
        if found is None:
            return match[0]
        lines = (f"{name} = {round(number, 2) + 0:g}\n" for name, number in found.items())
        kept = "".join(line for line in lines if not line.endswith("= 0\n"))
        return match["head"] + kept

    head = r'(?P<head>\[\[family\]\]\nname = "(?P<name>[^"]*)"\n.*?\[family\.weights\]\n)'
    table = head + r"(?:\w+ = \S+\n)*"
    TABLE.write_text(re.sub(table, put, text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Read the arguments, fit, and say or write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--write", action="store_true", help="into families.toml")
    arguments = parser.parse_args()
    weights = fitted(cases(rows(arguments.data)), all_families())
    if arguments.write:
        write(weights)
    else:
        for name, found in weights.items():
            print(f"{name:22}", *(f"{of}={number:.2f}" for of, number in found.items() if number))


def default_data() -> Path:
    """Where the recordings lie beside a checkout."""
    return CHECKOUT.parent / "shared" / "data" / "tokens" / "dev.jsonl.gz"


if __name__ == "__main__":
    main()
