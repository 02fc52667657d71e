"""A tool loop over Chat Completions with curl, a process for each request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from .shelves import DESCRIPTION, NAME, SCHEMA, TASK, look

TOOL: Any = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
ADDRESS = "https://api.openai.com/v1/chat/completions"


def post(body: dict[str, Any]) -> dict[str, Any]:
    """What curl prints. Ends this program where curl fails."""
    done = subprocess.run(
        [
            *(sys.argv[1], "--silent", "--show-error", "--fail-with-body", "--compressed"),
            *("--header", f"Authorization: Bearer {os.environ['OPENAI_API_KEY']}"),
            *("--json", "@-", ADDRESS),
        ],
        input=json.dumps(body).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        sys.exit(f"curl ended with {done.returncode}: {done.stdout.decode()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


messages: list[Any] = [{"role": "user", "content": TASK}]
while True:
    asked = {"model": "gpt-4o", "messages": messages, "tools": [{"type": "function"}]}
    asked["tools"] = [{"type": "function", "function": TOOL}]
    message = post(asked)["choices"][0]["message"]
    messages.append(message)
    if not message.get("tool_calls"):
        print(message["content"])
        break
    for call in message["tool_calls"]:
        text = look(**json.loads(call["function"]["arguments"]))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
