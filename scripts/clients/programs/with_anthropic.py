"""A tool loop with Anthropic's SDK, plain and streamed in turn."""

from __future__ import annotations

import sys
from typing import Any

import anthropic

from .shelves import DESCRIPTION, NAME, SCHEMA, TASK, look

client = anthropic.Anthropic()
messages: list[Any] = [{"role": "user", "content": TASK}]
tools: list[Any] = [{"name": NAME, "description": DESCRIPTION, "input_schema": SCHEMA}]
answer: Any
while True:
    asked: dict[str, Any] = {"model": sys.argv[1], "max_tokens": 500, "tools": tools}
    if len(messages) % 4 == 1:
        with client.messages.stream(**asked, messages=messages) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**asked, messages=messages)
    messages.append({"role": "assistant", "content": answer.content})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": look(**block.input)}
        for block in answer.content
        if block.type == "tool_use"
    ]
    if not results:
        print("".join(block.text for block in answer.content if block.type == "text"))
        break
    messages.append({"role": "user", "content": results})
