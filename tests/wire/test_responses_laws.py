"""OpenAI Responses: whatever is condensed, the strict provider takes."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.conversations import laws, seeds, words
from tests.way import Way
from tests.wire.bodies import dumped
from tests.wire.responses_bodies import (
    PRINTED,
    Json,
    body,
    call,
    json_values,
    message,
    output,
    reasoning,
    text,
)

from loopback import rules_responses
from mitmcontext.values import Unreadable
from mitmcontext.wire.openai_responses import RESPONSES


@st.composite
def talks(draw: st.DrawFn) -> list[Json]:
    """A long history: prompts, reasoning, calls of all kinds with their outputs, answers."""
    items: list[Json] = []
    if draw(st.booleans()):
        items.append({"type": "additional_tools", "id": "at_1", "role": "developer", "tools": []})
    items.append(draw(st.sampled_from([message("developer", "Be brief."), message("system", "x")])))
    reasons = draw(st.booleans())
    for turn in range(draw(st.integers(1, 4))):
        said = words(draw(seeds), draw(st.integers(5, 900)))
        items.append(draw(st.sampled_from([message("user", said), message("user", [text(said)])])))
        for step in range(draw(st.integers(0, 6))):
            items += draw(steps(f"{turn}_{step}", reasons=reasons))
        if draw(st.booleans()):
            items += [reasoning(f"rs_{turn}_end")] if reasons else []
            items.append(message("assistant", [text("Done.", "output_text")], id=f"msg_{turn}"))
    return items


@st.composite
def steps(draw: st.DrawFn, name: str, *, reasons: bool) -> list[Json]:
    said = words(draw(seeds), draw(st.sampled_from([0, 300, 1_600, 6_000])))
    outputs: dict[str, tuple[Json, Any]] = {
        "function_call": ({"name": "read", "arguments": "{}"}, said),
        "custom_tool_call": ({"name": "exec", "input": "ls"}, [text("Done:"), text(said)]),
        "shell_call": ({"action": {"commands": ["ls"]}}, [{**PRINTED, "stdout": said}]),
        "apply_patch_call": ({"operation": {"type": "update_file", "path": "a"}}, said),
        "local_shell_call": ({"action": {"command": ["ls"]}}, said),
    }
    found: list[Json] = [reasoning(f"rs_{name}")] if reasons else []
    if draw(st.booleans()):
        found.append(message("assistant", "I look.", id=f"msg_{name}"))
    if not reasons and draw(st.integers(0, 5)) == 0:
        found.append({"type": "something_new", "id": f"new_{name}"})
    kinds = draw(st.lists(st.sampled_from(sorted(outputs)), min_size=1, max_size=3))
    for number, kind in enumerate(kinds):
        given_, _ = outputs[kind]
        prefix = "fc" if kind == "function_call" else "x"
        found.append(
            {**call(f"call_{name}_{number}", kind, **given_), "id": f"{prefix}_{name}_{number}"}
        )
    answers = [
        output(outputs[kind][1], f"call_{name}_{number}", f"{kind}_output")
        for number, kind in enumerate(kinds)
    ]
    return [*found, *draw(st.permutations(answers))]


def refusal(raw: bytes, memory: rules_responses.Memory) -> object:
    read = json.loads(raw)
    read["input"] = [item for item in read["input"] if item.get("type") != "something_new"]
    return rules_responses.check(read, memory)


@laws
@given(talks(), st.integers(600, 6_000))
def test_what_is_condensed_is_taken(items: list[Json], room: int) -> None:
    way, memory = Way(), rules_responses.Memory()
    for cut in sorted({len(items) // 2, len(items)}):
        whole = items[: cut + _answers(items[cut:])]
        sent = body(*whole, tools=[{"type": "function", "name": "read"}])
        assert refusal(sent, memory) is None
        found = way.send(RESPONSES, sent, room)
        assert refusal(found.forwarded, memory) is None
        again = way.lay(RESPONSES, sent).forwarded.request.body
        assert again == found.forwarded


def _answers(rest: list[Json]) -> int:
    """How many more items belong to the answer that a cut fell into, up to the next prompt."""
    return next((at for at, item in enumerate(rest) if item.get("role") == "user"), len(rest))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a piece of JSON, with each key or index in it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for inner in value.values():
            found += places(inner)
    elif isinstance(value, list):
        found += [(value, at) for at in range(len(value))]
        for inner in value:
            found += places(inner)
    return found


@laws
@given(talks(), st.data())
def test_a_mutated_body_is_left_alone_or_taken(items: list[Json], data: st.DataObject) -> None:
    read = {"model": "gpt-5.1", "input": copy.deepcopy(items), "tools": [{"type": "custom"}]}
    for _ in range(data.draw(st.integers(1, 3))):
        held, key = data.draw(st.sampled_from(places(read)))
        if data.draw(st.booleans()):
            held[key] = data.draw(json_values)
        elif isinstance(held, dict):
            del held[key]
        if not places(read):
            return
    sent = dumped(read)
    way = Way()
    try:
        found = way.send(RESPONSES, sent, 900)
    except Unreadable:
        return
    if found.forwarded == sent:
        return
    if refusal(sent, rules_responses.Memory()) is None:
        assert refusal(found.forwarded, rules_responses.Memory()) is None
