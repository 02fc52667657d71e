"""OpenAI Responses: items and requests, as tests build them."""

from __future__ import annotations

from typing import Any

from tests.drawn import values_with
from tests.wire.bodies import dumped

Json = dict[str, Any]
PATH = "/v1/responses"


def message(role: str, content: Any, **others: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **others}


def text(said: str, kind: str = "input_text", **others: Any) -> Json:
    return {"type": kind, "text": said, **others}


def call(id_: str = "call_1", kind: str = "function_call", **others: Any) -> Json:
    given_ = others or {"name": "run", "arguments": '{"a": 1}'}
    return {"type": kind, "call_id": id_, **given_}


def output(said: Any, id_: str = "call_1", kind: str = "function_call_output") -> Json:
    return {"type": kind, "call_id": id_, "output": said}


def reasoning(id_: str = "rs_1", sealed: str = "gAAA" * 300, **others: Any) -> Json:
    return {
        "type": "reasoning",
        "id": id_,
        "summary": [{"type": "summary_text", "text": "Look first."}],
        "encrypted_content": sealed,
        **others,
    }


def body(*items: Any, **others: Any) -> bytes:
    return dumped({"model": "gpt-5.1", "input": list(items) or [message("user", "x")], **others})


EXIT = {"type": "exit", "exit_code": 1}
PRINTED = {"stdout": "one\ntwo", "stderr": "oh", "outcome": EXIT}
NOTED = {"internal_chat_message_metadata_passthrough": {"turn_id": "t"}}
SAID = message("assistant", [text("I look.", "output_text")], id="msg_2")
json_values = values_with(
    ["type", "text", "annotations", "stdout", "stderr", "outcome"],
    ["input_text", "output_text", "input_image"],
)
