"""Google Gemini: what answers report and refuse."""

from __future__ import annotations

import pytest
from tests.wire.bodies import dumped
from tests.wire.gemini_bodies import Json

from mitmcontext.values import TooLong, Usage
from mitmcontext.wire.gemini import GENERATE


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        pytest.param(
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2}},
            Usage(9, 2),
            id="plain",
        ),
        pytest.param(
            {
                "usageMetadata": {
                    "promptTokenCount": 900,
                    "cachedContentTokenCount": 512,
                    "candidatesTokenCount": 2,
                    "thoughtsTokenCount": 30,
                    "totalTokenCount": 932,
                }
            },
            Usage(900, 32, 512),
            id="cached, and thought about",
        ),
        pytest.param(
            {"response": {"usageMetadata": {"promptTokenCount": 9}}}, Usage(9), id="code assist"
        ),
        pytest.param({"usageMetadata": {"trafficType": "ON_DEMAND"}}, Usage(), id="a first piece"),
        pytest.param({"totalTokens": 31, "totalBillableCharacters": 96}, Usage(31), id="a count"),
        pytest.param({"candidates": []}, None, id="nothing told"),
        pytest.param({"response": "x", "usageMetadata": 5}, None, id="odd"),
        pytest.param({"usageMetadata": {"promptTokenCount": "9"}}, Usage(), id="odd numbers"),
    ],
)
def test_usage_is_read_from_any_answer(event: Json, usage: Usage | None) -> None:
    assert GENERATE.usage_of(event) == usage


def error(said: str, status: str = "INVALID_ARGUMENT", code: int = 400) -> bytes:
    return dumped({"error": {"code": code, "message": said, "status": status}})


TOO_LONG = "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("status", "body", "shape", "length"),
    [
        (400, error("Please ensure that the number of function response parts"), True, None),
        (400, b"[" + error("* GenerateContentRequest.contents[0].parts: x") + b"]", True, None),
        (400, error("Function call is missing a thought_signature"), True, None),
        (400, error(TOO_LONG), False, TooLong(1_200_293, 1_048_576)),
        (400, b"[" + error(TOO_LONG) + b"]", False, TooLong(1_200_293, 1_048_576)),
        (
            400,
            error(
                "Unable to submit request because the input token count is 1300 but model only"
                " supports up to 1000. Reduce the input token count and try again."
            ),
            False,
            TooLong(1_300, 1_000),
        ),
        (
            400,
            error("The input token count exceeds the maximum number of tokens allowed 131072."),
            False,
            TooLong(None, 131_072),
        ),
        (
            400,
            error("The input token count exceeds the maximum number of tokens allowed."),
            False,
            TooLong(),
        ),
        (400, error("Request payload size exceeds the limit: 20971520 bytes."), False, None),
        (400, error("API key not valid. Please pass a valid API key."), False, None),
        (400, error("User location is not supported.", "FAILED_PRECONDITION"), False, None),
        (403, error("Permission denied", "PERMISSION_DENIED", 403), False, None),
        (429, error("Resource has been exhausted", "RESOURCE_EXHAUSTED", 429), False, None),
        (500, error("input token count (5) number of tokens allowed (4)"), False, None),
        (400, b"<html>Bad Request</html>", False, None),
    ],
)
def test_refusals_are_told_apart(
    status: int, body: bytes, shape: bool, length: TooLong | None
) -> None:
    assert GENERATE.refuses_shape(status, body) == shape
    assert GENERATE.refuses_length(status, body) == length


def test_a_long_refusal_is_read_in_no_time() -> None:
    body = error("input token count " * 50_000 + "x" * 1_000_000)
    assert GENERATE.refuses_length(400, body) is None
