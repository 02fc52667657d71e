"""Google Gemini: contents and their parts, as tests build them."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st
from tests.drawn import SCALARS, values_with
from tests.wire.bodies import dumped

Json = dict[str, Any]

PATH = "/v1beta/models/gemini-3.8-flash:generateContent"
SIGNATURE = base64.b64encode(b"a signature of the provider's").decode()


def content(role: str, *parts: Any, **others: Any) -> bytes:
    return dumped({"role": role, "parts": list(parts), **others})


def text(said: str, **others: Any) -> Json:
    return {"text": said, **others}


def call(name: str = "run", **others: Any) -> Json:
    return {"functionCall": {"name": name, "args": {"a": 1}, **others}}


def response(said: Any, name: Any = "run", **others: Any) -> Json:
    return {"functionResponse": {"name": name, "response": said, **others}}


def signed(part: Json, signature: str = SIGNATURE) -> Json:
    return {**part, "thoughtSignature": signature}


PNG = {"inlineData": {"mimeType": "image/png", "data": "iVBO" * 900}}
WAV = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA" * 900}}
PDF = {"inlineData": {"mimeType": "application/pdf", "data": "AA__" * 900}}
CSV = {"inlineData": {"mimeType": "text/csv", "data": base64.b64encode(b"a,b\n1,2").decode()}}
STORED = {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/files/1"}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}

KEYS = [
    "text",
    "thought",
    "thoughtSignature",
    "functionCall",
    "functionResponse",
    "function_response",
    "inlineData",
    "fileData",
    "name",
    "args",
    "response",
    "output",
    "mimeType",
    "data",
    "parts",
]
json_values = values_with(
    KEYS, ["image/png", "text/csv"], scalars=SCALARS | st.floats(allow_nan=False)
)
