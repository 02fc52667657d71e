"""A chat with Google's SDK, which calls the function by itself."""

from __future__ import annotations

import sys

from google import genai  # type: ignore[import-not-found]  # only where this program runs
from google.genai import types  # type: ignore[import-not-found]

from .shelves import TASK, look

automatic = types.AutomaticFunctionCallingConfig(maximum_remote_calls=100)
config = types.GenerateContentConfig(tools=[look], automatic_function_calling=automatic)
client = genai.Client()  # it hangs up once nobody has it any more
chat = client.chats.create(model=sys.argv[1], config=config)
print(chat.send_message(TASK).text)
for piece in chat.send_message_stream("Say that again."):
    print(piece.text or "", end="")
print()
