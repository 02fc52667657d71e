"""A tool loop over Chat Completions with OpenAI's SDK, asynchronously, streamed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai

from .shelves import DESCRIPTION, NAME, SCHEMA, TASK, look

TOOL: Any = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}


async def main(model: str) -> None:
    """Go on until no tool is called."""
    client = openai.AsyncOpenAI()
    messages: list[Any] = [
        {"role": "developer", "content": "Answer with a number."},
        {"role": "user", "content": TASK},
    ]
    while True:
        async with client.chat.completions.stream(
            model=model, messages=messages, tools=[{"type": "function", "function": TOOL}]
        ) as stream:
            answer = (await stream.get_final_completion()).choices[0].message
        if not answer.tool_calls:
            print(answer.content)
            return
        # A piece of a stream has an index, which the API does not take back.
        calls = [call.model_dump(exclude={"index"}) for call in answer.tool_calls]
        for call in calls:
            call["function"].pop("parsed_arguments")
        messages.append({"role": "assistant", "content": answer.content, "tool_calls": calls})
        for call in calls:
            text = look(**json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})


asyncio.run(main(sys.argv[1]))
