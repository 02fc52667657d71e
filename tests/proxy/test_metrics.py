"""Prometheus' text format, read back by its rules."""

from __future__ import annotations

import re

from mitmcontext.proxy.figures import Figures
from mitmcontext.proxy.metrics import metrics
from mitmcontext.values import Action, Money, Outcome

_SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z_]+="((?:[^"\\\n]|\\["\\n])*)"\})? (-?[0-9.e+-]+)'
)


def read(text: str) -> dict[tuple[str, str], float]:
    """The samples by name and label; each family has its help and type, and stands together."""
    families: list[str] = []
    found = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, rest = line.split(" ", 3)
            if kind == "HELP":
                assert name not in families
                families.append(name)
            else:
                assert (kind, name, rest in ("counter", "gauge")) == ("TYPE", families[-1], True)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match is not None, line
        assert match[1] == families[-1]
        found[match[1], match[3] or ""] = float(match[4])
    return found


def test_every_figure_is_there_and_reads_back() -> None:
    figures = Figures(lambda: 0.0)
    figures.record(Outcome(Action.CONDENSED, "", "anthropic", sent=900, forwarded=500, freed=400))
    figures.record(Outcome(Action.FAILED_OPEN, 'a "quoted" \\ reason\nin two lines', "anthropic"))
    figures.billed(Money(True, 0.5, -0.125, 0.5, -0.125), observed=False)
    stores = {"token counts": {"hits": 7, "misses": 3, "size": None}}
    found = read(metrics(figures.snapshot() | {"stores": stores}))
    assert found["mitmcontext_llm_requests_total", ""] == 2
    assert found["mitmcontext_actions_total", "condensed"] == 1
    assert found["mitmcontext_tokens_total", "sent"] == 900
    assert found["mitmcontext_tokens_total", "forwarded"] == 500
    assert found["mitmcontext_saved_dollars", ""] == -0.125
    assert found["mitmcontext_store_hits_total", "token counts"] == 7
    reason = r"a \"quoted\" \\ reason\nin two lines"
    assert found["mitmcontext_failures_total", reason] == 1


def test_of_nothing_nothing_is_told() -> None:
    assert metrics({}) == ""
    assert read(metrics(Figures(lambda: 0.0).snapshot()))
