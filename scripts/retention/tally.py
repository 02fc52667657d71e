"""How much is left of what was asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from mitmcontext.values import Kind, Message
from retention.probes import Json, Probe

FAR = 5


@dataclass
class Tally:
    """How much of what was asked for is left, and of how many tokens."""

    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kept: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent: int = 0
    forwarded: int = 0
    seconds: list[float] = field(default_factory=list)

    def judge(self, probes: Iterable[Probe], text: str, original: str) -> None:
        """Count the probes that are left; one that the request itself lacks says nothing."""
        for probe in probes:
            if probe.text not in original:
                continue
            held = probe.text in text
            for name in (probe.kind, f"{probe.kind}, far")[: 2 if probe.since >= FAR else 1]:
                self.asked[name] += 1
                self.kept[name] += held

    def judge_typed(self, messages: Iterable[Message], text: str) -> None:
        """Count the characters of typed texts that are left, whole texts only."""
        unmarked = text.replace("\n> ", "\n")
        for message in messages:
            for part in message.parts:
                if part.kind is Kind.TYPED:
                    self.asked["typed words"] += len(part.text)
                    held = part.text in text or part.text in unmarked
                    self.kept["typed words"] += len(part.text) * held

    def figures(self) -> Json:
        """Shares of 1; times in milliseconds."""
        shares = {name: self.kept[name] / asked for name, asked in self.asked.items() if asked}
        found: Json = {"tokens": self.forwarded / max(1, self.sent), **shares}
        if self.seconds:
            found["ms, median"] = median(self.seconds) * 1_000
            found["ms, p95"] = sorted(self.seconds)[int(len(self.seconds) * 0.95)] * 1_000
        return found
