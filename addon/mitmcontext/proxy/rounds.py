"""The questions of one plan: asked side by side, paid for, and answered all or not at all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from mitmcontext.condense.cost import billed_of, cost_of
from mitmcontext.condense.summaries.prompts import Question
from mitmcontext.proxy.asking import Answer, Asker, Post
from mitmcontext.proxy.endpoint import Whom
from mitmcontext.proxy.guard import without_end
from mitmcontext.proxy.job import Ready
from mitmcontext.proxy.patience import Patience
from mitmcontext.proxy.purse import root_of
from mitmcontext.proxy.questions import Questions
from mitmcontext.summarising import Way, price_of
from mitmcontext.values import Usage

LATE: Final = 4
"""How many times as long as a request waits questions may take, to serve the next step."""

# Questions under way at once, of all conversations together.
_QUESTIONS: Final = 4


class _NoAnswer(Exception):
    """One question of several came to nothing, so that the others need no answer either."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be asked for a request, decided and not paid for yet."""

    ready: Ready
    way: Way
    whom: Whom
    allowed: float

    @property
    def root(self) -> bytes:
        """What the conversation is known by."""
        return root_of(self.ready.laid.sent.links)

    @property
    def link(self) -> bytes:
        """The link that the summaries will belong to."""
        return self.ready.laid.sent.links[self.way.plan.stretch.end - 1]


@dataclass(slots=True)
class Bill:
    """What the questions of one flight have cost so far."""

    cost: float = 0.0
    answers: list[Answer] = field(default_factory=list)


class Rounds:
    """Asks what plans want to know.

    Args:
        asker: sends questions.
        patience: hears how providers answer.
        questions: counts.
    """

    def __init__(self, asker: Asker, patience: Patience, questions: Questions) -> None:
        self._asker = asker
        self._patience = patience
        self._questions = questions
        self._slots = asyncio.Semaphore(_QUESTIONS)

    async def answers(self, wish: Wish, bill: Bill) -> list[str] | None:
        """The texts that make a summary; None where a question came to nothing."""
        try:
            return await self._answers(wish, bill)
        except ExceptionGroup as failed:
            if failed.split(_NoAnswer)[1] is not None:
                raise
            return None

    async def _answers(self, wish: Wish, bill: Bill) -> list[str]:
        """The same.

        Raises:
            ExceptionGroup: of `_NoAnswer`, where a question came to nothing.
        """
        way = wish.way
        async with asyncio.TaskGroup() as group:
            if way.behind is not None:
                post = wish.whom.behind(way.behind)
                asked = [group.create_task(without_end(self._ask(wish, post, way.price, bill)))]
            else:
                pieces = way.plan.pieces
                asked = [
                    group.create_task(without_end(self._ask_alone(wish, one, bill)))
                    for one in pieces
                ]
        found = [task.result() for task in asked]
        joined = None if way.behind is not None else way.plan.then(found)
        if joined is None:
            return found
        async with asyncio.TaskGroup() as group:
            last = group.create_task(without_end(self._ask_alone(wish, joined, bill)))
        return [last.result()]

    async def _ask_alone(self, wish: Wish, question: Question, bill: Bill) -> str:
        def made() -> tuple[Post, float]:
            tokens = wish.way.plan.tokens(question)
            price = price_of(tokens, question, wish.whom.prices)
            return wish.whom.alone(question, wish.ready.request), price

        post, price = await asyncio.to_thread(made)
        return await self._ask(wish, post, price, bill)

    async def _ask(self, wish: Wish, post: Post, price: float, bill: Bill) -> str:
        """The text of an answer.

        Raises:
            _NoAnswer: there is none.
        """
        provider = provider_of(wish.ready, wish.whom)
        async with self._slots:
            began = time.monotonic()
            self._questions.count("asked")
            # Until the provider says what it was, it is taken to be the most that it may be.
            bill.cost += price
            answer = await self._asker.ask(post, wish.ready.settings.condensation_timeout * LATE)
        bill.answers.append(answer)
        self._patience.heard(provider, answer)
        if answer.usage is not None and answer.usage.input_tokens is not None:
            bill.cost += self._paid(wish, answer.usage) - price
        elif answer.status not in (0, 200):
            bill.cost -= price  # what is refused is not billed
        if answer.fault:
            raise _NoAnswer
        self._questions.count("answered")
        self._questions.count("answer_ms", (time.monotonic() - began) * 1000)
        return answer.text

    def _paid(self, wish: Wish, usage: Usage) -> float:
        billed = billed_of(
            usage.input_tokens or 0,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        )
        cost = cost_of(billed, wish.whom.prices)
        self._questions.count("price", cost)
        self._questions.count("input_tokens", billed.input)
        self._questions.count("output_tokens", billed.output)
        return cost


def provider_of(ready: Ready, asked: Whom) -> bytes:
    """Whom a refusal or a busy signal is of: the tenant there, or the user's own endpoint."""
    return f"{asked.target.host}:{asked.target.port}".encode() + (
        b"" if asked.is_elsewhere else ready.job.tenant
    )
