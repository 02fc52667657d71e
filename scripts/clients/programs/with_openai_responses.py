"""A tool loop over Responses with OpenAI's SDK, which keeps the history itself."""

from __future__ import annotations

import json
import sys
from typing import Any

import openai

from .shelves import DESCRIPTION, NAME, SCHEMA, TASK, look

TOOL: Any = {"type": "function", "name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
client = openai.OpenAI()
items: list[Any] = [{"role": "user", "content": TASK}]
answer: Any
while True:
    asked: dict[str, Any] = {"model": sys.argv[1], "store": False, "tools": [TOOL]}
    asked["include"] = ["reasoning.encrypted_content"]
    if len(items) % 2:
        with client.responses.stream(**asked, input=items) as stream:
            answer = stream.get_final_response()
    else:
        answer = client.responses.create(**asked, input=items)
    calls = [item for item in answer.output if item.type == "function_call"]
    if not calls:
        print(answer.output_text)
        break
    items += [
        item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output
    ]
    for call in calls:
        text = look(**json.loads(call.arguments))
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": text})
