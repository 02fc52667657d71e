"""Recorded dialogues with summaries of their own: what a good model might have answered.

Each session of a dialogue has a summary that people checked, and there are questions on the whole,
each with its answer and where that was said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopback.answers import Reply

Json = dict[str, Any]

_LIMIT = re.compile(r"at most (\d+) words")
_SENTENCE = re.compile(r"(?<=[.!?]) +")
_WORD = re.compile(r"[a-z]+|\d+")
# Words that say nothing of whether an answer is still there.
_COMMON = frozenset(
    (
        *("the", "and", "for", "with", "that", "this", "from", "have", "been", "was", "were"),
        *("are", "his", "her", "their", "they", "what", "when", "where", "who", "how", "did"),
        *("does", "will", "would", "could", "yes", "not", "likely", "because", "about", "into"),
    )
)
_HEARD = 60  # characters of a message by which it is known in a question


def session_of(dia_id: str) -> int:
    """The number of the session in which something was said: "D12:3" is of the twelfth."""
    return int(dia_id[1:].partition(":")[0])


@dataclass(frozen=True)
class Question:
    """A question on a dialogue: the words that answer it, and the messages that say so."""

    words: frozenset[str]
    evidence: tuple[int, ...]

    def kept(self, text: str) -> float:
        """The share of the answer's words that stand in a text."""
        return sum(word in text for word in self.words) / len(self.words)


class Gold:
    """One dialogue with its ready-made summaries."""

    def __init__(self, conversation: Json) -> None:
        self._ids: Sequence[Sequence[str]] = conversation["dia_ids"]
        notes: Mapping[str, Any] = conversation["session_notes"]
        self._summaries = {
            int(name.split("_")[1]): text
            for name, text in notes.items()
            if name.endswith("_summary") and isinstance(text, str)
        }
        self._heard = [
            (" ".join(str(message["content"]).split())[:_HEARD], ids)
            for message, ids in zip(conversation["messages"], self._ids, strict=True)
            if ids
        ]
        self.questions = tuple(self._questions(conversation["qa"]))

    def answer(self, asked: str) -> Reply:
        """The summaries of the sessions that a question is about, cut to the length it asks for."""
        text = " ".join(asked.replace("\\n", " ").replace('\\"', '"').split())
        spoken = {session_of(one) for said, ids in self._heard if said in text for one in ids}
        told = {
            number
            for number, summary in self._summaries.items()
            if " ".join(_SENTENCE.split(summary)[0].split()) in text
        }
        found = [self._summaries[n] for n in sorted(spoken | told) if n in self._summaries]
        limits = _LIMIT.findall(asked)
        return Reply(fitted(found, int(limits[-1]) if limits else 200))

    def _questions(self, listed: Iterable[Json]) -> Iterable[Question]:
        places = {one: at for at, ids in enumerate(self._ids) for one in ids}
        for one in listed:
            words = frozenset(
                word
                for word in _WORD.findall(str(one.get("answer", "")).lower())
                if (len(word) > 2 or word.isdigit()) and word not in _COMMON
            )
            evidence = tuple(places[place] for place in one["evidence"] if place in places)
            if words and evidence:
                yield Question(words, evidence)


def fitted(summaries: Sequence[str], words: int) -> str:
    """Summaries in so many words at the most: each loses its last sentences, the oldest most."""
    sentences = [_SENTENCE.split(one) for one in summaries]
    while sum(len(one.split()) for told in sentences for one in told) > words:
        longest = max(range(len(sentences)), key=lambda at: (len(sentences[at]), -at))
        if len(sentences[longest]) < 2:
            sentences.pop(0)
        else:
            sentences[longest].pop()
    return "\n\n".join(" ".join(told) for told in sentences)
