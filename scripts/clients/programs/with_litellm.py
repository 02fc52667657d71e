"""A tool loop with litellm; the model's name says over which API."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]  # only where this program runs

from .shelves import DESCRIPTION, NAME, SCHEMA, TASK, look

TOOL: Any = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}


async def main(model: str, *, wait: bool) -> None:
    """Go on until no tool is called, in one of the library's two manners."""
    messages: list[Any] = [{"role": "user", "content": TASK}]
    tools = [{"type": "function", "function": TOOL}]
    while True:
        if wait:
            done = await litellm.acompletion(model=model, messages=messages, tools=tools)
        else:
            done = litellm.completion(model=model, messages=messages, tools=tools)
        answer = done.choices[0].message
        if not answer.tool_calls:
            print(answer.content)
            return
        calls = [
            {"id": call.id, "type": "function", "function": call.function.model_dump()}
            for call in answer.tool_calls
        ]
        messages.append({"role": "assistant", "content": answer.content, "tool_calls": calls})
        for call in answer.tool_calls:
            text = look(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


asyncio.run(main(sys.argv[2], wait=sys.argv[1] == "async"))
