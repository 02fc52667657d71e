"""A running proxy's figures in the terminal, anew every few seconds."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "addon")]

from mitmcontext.proxy.bands import bands, shown  # noqa: E402
from mitmcontext.proxy.page import dollars  # noqa: E402
from mitmcontext.proxy.safe import line  # noqa: E402

URL: Final = "http://context.mitm/stats.json"
BLOCKS: Final = "▁▂▃▄▅▆▇█"
MOST_LOOKS: Final = 300
# To the upper left; and from there on clear the rest.
HOME, CLEAR = "\x1b[H", "\x1b[J"


class Look:
    """One look at the figures."""

    def __init__(self, figures: Mapping[str, Any], at: float) -> None:
        self.figures = figures
        self.at = at

    @property
    def seen(self) -> int:
        """How many LLM requests there were."""
        return int(self.figures["requests"]["recognised"])

    @property
    def saved(self) -> int:
        """How many tokens were saved, or would have been."""
        tokens = self.figures["tokens"]
        return int(tokens["saved"] + tokens["would_save"])


def screen(looks: Sequence[Look]) -> Iterator[str]:
    """What there is to see, newest look last."""
    newest, figures = looks[-1], looks[-1].figures
    requests, tokens, money = figures["requests"], figures["tokens"], figures["money"]
    yield f"requests   {newest.seen:>12,} LLM requests, {_rate(looks)}"
    yield (
        f"{'':<11}{requests['under_threshold'] + requests['no_step']:>12,} as they came, "
        f"{requests['condensed']:,} condensed, {requests['reapplied']:,} with earlier steps"
    )
    yield (
        f"{'':<11}{requests['left_alone']:>12,} left alone, {requests['observed']:,} observed, "
        f"{requests['failed_open']:,} failed open"
    )
    saved = newest.saved / tokens["sent"] if tokens["sent"] else 0.0
    would = " would be" if tokens["would_save"] and not tokens["saved"] else ""
    yield f"tokens     {tokens['sent']:>12,} sent, {newest.saved:,}{would} saved ({saved:.1%})"
    yield f"           {sparkline([look.saved for look in looks])}"
    amount = money["saved"] + money["would_save"]
    spent = f"{dollars(money['cost']):>12} spent"
    yield f"money      {spent}, {dollars(amount)} saved after cache effects"
    estimates = figures["estimates"]
    yield (
        f"estimates  {estimates['compared']:>12,} compared, {estimates['within_2_percent']:.0%} "
        f"within 2 %, {estimates['within_5_percent']:.0%} within 5 %"
    )
    asked = figures.get("questions", {})
    if asked.get("asked"):
        yield f"questions  {asked['asked']:>12,} to models, {asked['answered']:,} answered"
    yield f"memory     {figures['memory_usage_mb']:>12,.0f} MB"
    yield ""
    for band in bands(figures):
        value = shown(band.value, band.target.unit)
        yield f"{band.rating:<20} {value:>10}  {band.target.title}"
        if band.missed:
            advice = textwrap.wrap(f"what helps: {band.target.advice}", 72)
            yield from (f"{'':<6}{part}" for part in advice)
    for name, store in figures.get("stores", {}).items():
        yield f"{'cache':<20} {store['hit_ratio']:>10.1%}  {name}: {store['state']}"
    for why, times in figures["failures"].items():
        yield f"{'went wrong':<20} {times:>10,}  {why}"


def _rate(looks: Sequence[Look]) -> str:
    if len(looks) < 2 or looks[-1].at <= looks[-2].at:
        return "counting"
    more = max(0, looks[-1].seen - looks[-2].seen)
    return f"{more / (looks[-1].at - looks[-2].at):.1f} a second"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """How a figure grew, as a row of blocks."""
    latest = list(values)[-width:]
    low, high = min(latest), max(latest)
    range_ = high - low or 1
    return "".join(BLOCKS[round((value - low) / range_ * (len(BLOCKS) - 1))] for value in latest)


def look(client: httpx.Client) -> Look | str:
    """The figures as they are now, or in words why there are none."""
    try:
        answer = client.get(URL)
        found = answer.raise_for_status().json()
        found["requests"]["recognised"]
    except httpx.HTTPStatusError as error:
        return f"the proxy answers {error.response.status_code}"
    except httpx.HTTPError as error:
        return f"no proxy answers there ({type(error).__name__})"
    except (json.JSONDecodeError, TypeError, KeyError):
        return "what answers there is no mitmcontext"
    return Look(found, time.monotonic())


def show(lines: Sequence[str], *, again: bool) -> None:
    """Print them, over what was there before if they are to be seen anew."""
    size = shutil.get_terminal_size((100, 40))
    fitting = [line(one)[: size.columns - 1] for one in lines] if again else list(map(line, lines))
    if not again:
        print("\n".join(fitting), flush=True)
        return
    text = "\x1b[K\n".join(fitting[: size.lines - 1])
    print(f"{HOME}{text}\x1b[K{CLEAR}", end="", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Show the figures until told to stop; 1 where there were none."""
    parser = argparse.ArgumentParser(prog="monitor", description=__doc__)
    parser.add_argument("proxy", nargs="?", default="http://127.0.0.1:8080", metavar="PROXY")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--once", action="store_true")
    asked = parser.parse_args(arguments)
    once = asked.once or not sys.stdout.isatty()
    looks: deque[Look] = deque(maxlen=MOST_LOOKS)
    try:
        client = httpx.Client(proxy=asked.proxy, trust_env=False, timeout=5)
    except (ValueError, httpx.InvalidURL):
        parser.error("PROXY is an address such as http://127.0.0.1:8080")
    where = httpx.URL(asked.proxy)
    title = f"mitmcontext at {where.host}:{where.port or 8080}"
    with client:
        try:
            while True:
                found = look(client)
                if isinstance(found, Look):
                    looks.append(found)
                lines = [found] if isinstance(found, str) else list(screen(looks))
                show([f"{title}  {time.strftime('%H:%M:%S')}", "", *lines], again=not once)
                if once:
                    return 1 if isinstance(found, str) else 0
                time.sleep(max(0.2, asked.every))
        except KeyboardInterrupt:
            print()
    return 0 if looks else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
