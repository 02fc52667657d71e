"""How right and how fast token counting is.

    ./scripts/bench tokens [--data FILE] [--json] [--only accuracy|speed|resent]

Accuracy is held against the input size that providers reported for recorded requests (one JSON
object a line; without FILE those of ../shared/data). Three estimates are looked at: cold, as the
addon makes it for a first request; online, corrected by the answers to the requests before it in
the file, of the same host, model and source; and left out, cold with weights that were fitted
without the source that the request is from, which is what to expect of requests unlike any here.
Requests of which the provider counts more than their bodies hold are left out of everything.

Speed is that of new text, in CPU time, beside plain tiktoken on the same text in the same run.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "addon"), str(CHECKOUT / "scripts")]

from demo.session import MODEL, Session, encode  # noqa: E402
from fit_tokens import default_data, left_out  # noqa: E402
from lib.progress import Progress  # noqa: E402
from mitmcontext.known import Known  # noqa: E402
from mitmcontext.stores.memory import MemoryStore, lru  # noqa: E402
from mitmcontext.tokens import vocabulary  # noqa: E402
from mitmcontext.tokens.calibration import Calibration, Report, Scale, Shape  # noqa: E402
from mitmcontext.tokens.families import all_families, family_of  # noqa: E402
from mitmcontext.wire.anthropic import MESSAGES  # noqa: E402
from recorded import Case, cases, rows  # noqa: E402

Json = dict[str, Any]

NEAR = 0.05
LARGE = 500  # tokens; below, a token or two of difference is a percent
_TURNS = 200
_PARTS = 3
_SEED = 11
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


# Accuracy.


@dataclass(frozen=True)
class Judged:
    """Relative errors of one estimate for one group of requests."""

    errors: Sequence[float]

    def said(self) -> Json:
        """Number, median, 90th percentile, share within 5 %, and the signed median."""
        sizes = sorted(map(abs, self.errors))
        return {
            "requests": len(sizes),
            "median": round(median(sizes), 4),
            "p90": round(sizes[int(0.9 * (len(sizes) - 1))], 4),
            "within 5 %": round(sum(size <= NEAR for size in sizes) / len(sizes), 4),
            "bias": round(median(self.errors), 4),
        }


def vendor(case: Case) -> str:
    """Whose model it is, of those that targets speak of."""
    name = case.family.name
    if case.family.form == "typescript" and name != "gpt-oss":
        return "OpenAI"
    return "Claude" if name.startswith("claude") else "Gemini" if "gemini" in name else "others"


def groups(case: Case) -> Iterator[str]:
    """The lines of the table that a request belongs to."""
    if case.media:
        return
    size = next((name for least, name in _SIZES if case.reported >= least), "")
    if case.pictures:
        yield f"images: {vendor(case)}"
        yield "images: all"
        return
    if case.reported >= LARGE:
        yield f"{LARGE} and more: {vendor(case)}"
        yield f"{LARGE} and more: all"
    yield f"size: {size}"
    yield f"tools: {'yes' if case.tools else 'no'}"
    yield f"API: {case.api}"
    yield f"family: {case.family.name}"
    yield "all: all"


_SIZES = ((5_000, "5,000 and more"), (500, "500 to 4,999"), (50, "50 to 499"), (0, "below 50"))


def online(found: Iterable[Case]) -> Iterator[float]:
    """The estimate of each request, after the answers to those before it."""
    calibration = Calibration(10_000)
    for case in found:
        key = f"{case.host} {case.model} {case.repo}"
        shape = Shape(case.coarse, f"{case.coarse} {case.shape}")
        scale = calibration.scale(key, shape, None, case.estimate, case.fixed)
        expected = max(1, round(_scaled(case, scale)))
        yield expected
        if not (case.pictures or case.media):
            report = Report(case.estimate, case.reported)
            calibration.learn(key, shape, report, scale, expected)


def _scaled(case: Case, scale: Scale) -> float:
    return case.fixed + scale.offset + scale.slope * (case.estimate - case.fixed)


def accuracy(data: Path, without: bool) -> Json:
    """Each of the estimates, by group."""
    listed = list(rows(data))
    note = Progress("counting", len(listed))
    found = [case for case in cases(listed, note) if not case.hidden]
    note(len(listed))
    estimates: dict[str, Sequence[float]] = {
        "cold": [case.estimate for case in found],
        "online": list(online(found)),
    }
    if without:
        bar = Progress("left out", len({case.repo for case in found}))
        places = left_out(found, all_families(), bar)
        estimates["left out"] = [places[at] for at in range(len(found))]
    table: Json = {}
    for name, values in estimates.items():
        errors: defaultdict[str, list[float]] = defaultdict(list)
        for case, value in zip(found, values, strict=True):
            for group in groups(case):
                errors[group].append(value / case.reported - 1)
        table[name] = {group: Judged(errors[group]).said() for group in sorted(errors)}
    return {"requests": len(listed), "counted": len(found), **table}


# Speed.


def samples() -> dict[str, str]:
    """Some hundred thousand characters of each kind of text, all our own."""
    chance = random.Random(_SEED)
    session = {"messages": [message for seed in range(3) for message in Session(seed).messages]}
    sources = sorted((CHECKOUT / "addon").rglob("*.py")) + sorted(
        (CHECKOUT / "tests").rglob("*.py")
    )
    documents = [*CHECKOUT.glob("*.md"), CHECKOUT / "addon" / "README.md"]
    explained = [*sources, *sorted((CHECKOUT / "scripts").rglob("*.py"))]
    said = [path.read_text(encoding="utf-8") for path in documents]
    for path in explained:
        said += _DOCSTRING.findall(path.read_text(encoding="utf-8"))
    common = [chr(0x4E00 + chance.randrange(3_000)) for _ in range(600)]
    chinese = (chance.choice(common) if chance.random() > 0.06 else "，" for _ in range(300_000))
    return {
        "prose": "\n".join(said),
        "code": "".join(path.read_text(encoding="utf-8") for path in sources)[:900_000],
        "JSON": encode(session).decode()[:900_000],
        "Chinese": "".join(chinese),
        "runs": "".join(chance.choice("\n a=") * 20_000 for _ in range(45)),
        "base64": base64.b64encode(chance.randbytes(600_000)).decode(),
    }


def speed() -> Json:
    """Million tokens a second of CPU time, and what that is to plain tiktoken."""
    name = "o200k_base"
    plain = vocabulary.tiktoken_encoding(name)
    engines: dict[str, Callable[[str], int]] = {
        "plain tiktoken": lambda text: len(plain.encode_ordinary(text)),
        "tiktoken": partial(vocabulary.count, vocabulary.load(name, "tiktoken")),
    }
    if find_spec(vocabulary.FAST) is not None:
        engines[vocabulary.FAST] = partial(vocabulary.count, vocabulary.load(name, vocabulary.FAST))
    chosen = samples()
    note = Progress("speed", len(chosen) * _PARTS)
    warm = "".join(text[: len(text) // 4] for text in chosen.values())
    for count in engines.values():
        count(warm)
    table: Json = {}
    for done, (kind, text) in enumerate(chosen.items()):
        spent: defaultdict[str, float] = defaultdict(float)
        tokens: defaultdict[str, int] = defaultdict(int)
        # Each part is new to all: what was read before is remembered by some.
        read = len(text) // 4
        step = (len(text) - read) // _PARTS
        for part in range(_PARTS):
            stretch = text[read + part * step : read + (part + 1) * step]
            order = list(engines.items())
            for engine, count in order[part % len(order) :] + order[: part % len(order)]:
                began = time.thread_time()
                tokens[engine] += count(stretch)
                spent[engine] += time.thread_time() - began
            note(done * _PARTS + part + 1)
        rates = {engine: tokens[engine] / spent[engine] / 1e6 for engine in engines}
        table[kind] = {
            engine: {
                "Mtokens/s": round(rate, 2),
                "of plain": round(rate / rates["plain tiktoken"], 2),
                "tokens": tokens[engine],
            }
            for engine, rate in rates.items()
        }
    return table


# The same again.


def resent() -> Json:
    """A conversation of 200 turns that is sent whole each time: tokens a second, share known."""
    count = partial(vocabulary.count, vocabulary.load("o200k_base"))
    known = Known(MemoryStore(lru(64 << 20)), lambda _: count)
    family = family_of(MODEL, MESSAGES.name)
    messages: list[Json] = []
    tokens, spent, note, turns = 0, 0.0, Progress("resent", _TURNS), 0
    for message in (one for seed in range(100) for one in Session(seed).messages):
        messages.append(message)
        if message["role"] != "user":
            continue
        body = encode({"model": MODEL, "max_tokens": 500, "messages": messages})
        request = MESSAGES.read(body)
        began = time.thread_time()
        facts = known.recall(MESSAGES, family, request)
        tokens += sum(known.count(MESSAGES, family, request, facts)) + known.fixed(family, request)
        spent += time.thread_time() - began
        turns += 1
        note(turns)
        if turns == _TURNS:
            break
    return {
        "turns": turns,
        "tokens": tokens,
        "Mtokens/s": round(tokens / spent / 1e6, 1),
        "hits": round(known.hits / (known.hits + known.misses), 4),
    }


# What is said.


def said(result: Mapping[str, Any]) -> Iterator[str]:
    """The result as lines of text."""
    if "accuracy" in result:
        found = result["accuracy"]
        yield f"{found['counted']} of {found['requests']} requests can be judged by their bodies."
        names = [name for name in ("cold", "online", "left out") if name in found]
        yield ""
        yield f"{'':36} {'n':>5} " + " ".join(f"{name:^24}" for name in names)
        yield f"{'':36} {'':>5} " + " ".join(
            f"{'median':>7} {'p90':>7} {'<=5 %':>7}  " for _ in names
        )
        for group in sorted(found["cold"], key=_order):
            cells = [found[name][group] for name in names]
            line = " ".join(
                f"{cell['median']:7.1%} {cell['p90']:7.1%} {cell['within 5 %']:7.0%}  "
                for cell in cells
            )
            yield f"{group:36} {cells[0]['requests']:5} {line}"
    if "speed" in result:
        engines = list(next(iter(result["speed"].values())))
        yield ""
        yield f"{'Mtokens/s, new text':20}" + "".join(f"{engine:>24}" for engine in engines)
        for kind, cells in result["speed"].items():
            line = "".join(
                f"{cells[engine]['Mtokens/s']:15.1f} ({cells[engine]['of plain']:5.2f})"
                for engine in engines
            )
            yield f"{kind:20} {line}"
    if "resent" in result:
        found = result["resent"]
        yield ""
        yield (
            f"{found['turns']} turns, each with all before it, {found['tokens']:,} tokens: "
            f"{found['Mtokens/s']:.0f} Mtokens/s, {found['hits']:.1%} of the counts were known."
        )


_ORDER = (f"{LARGE} and more", "images", "all", "size", "tools", "API", "family")


def _order(group: str) -> tuple[int, str]:
    return _ORDER.index(group.partition(":")[0]), group


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, measure, say what came out."""
    parser = argparse.ArgumentParser(
        prog="./scripts/bench tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=default_data(), metavar="FILE")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--only", choices=("accuracy", "speed", "resent"))
    parser.add_argument("--quick", action="store_true", help="nothing fitted anew: no left out")
    asked = parser.parse_args(arguments)
    result: Json = {}
    if asked.only in (None, "accuracy"):
        if not asked.data.is_file():
            print(f"There is no {asked.data}: name a file with --data.", file=sys.stderr)
            return 2
        result["accuracy"] = accuracy(asked.data, not asked.quick)
    if asked.only in (None, "speed"):
        result["speed"] = speed()
    if asked.only in (None, "resent"):
        result["resent"] = resent()
    print(json.dumps(result, indent=1) if asked.json else "\n".join(said(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
