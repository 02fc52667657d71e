"""Where questions go, and what of a client's request goes with them."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from mitmproxy.test import tutils

from loopback.provider import Provider, serving
from mitmcontext.proxy.asking import Asker, Post, Trouble, target_of
from mitmcontext.proxy.endpoint import endpoint
from mitmcontext.wire.anthropic import MESSAGES
from mitmcontext.wire.openai_chat import CHAT


@pytest.mark.parametrize(
    ("address", "api", "place", "path", "key"),
    [
        (
            "http://localhost:11434/v1",
            "OpenAI Chat Completions",
            ("localhost", 11434),
            "/v1/chat/completions",
            b"Authorization",
        ),
        ("http://10.0.0.5:8000", "OpenAI Chat Completions", ("10.0.0.5", 8000), None, None),
        (
            "https://api.anthropic.com",
            "Anthropic Messages",
            ("api.anthropic.com", 443),
            "/v1/messages",
            b"x-api-key",
        ),
        ("https://x.test/a/v1/messages", "Anthropic Messages", ("x.test", 443), None, None),
        ("http://[::1]:1/v1/chat/completions", "OpenAI Chat Completions", ("::1", 1), None, None),
    ],
)
def test_an_address_says_what_is_spoken_there(
    address: str, api: str, place: tuple[str, int], path: str | None, key: bytes | None
) -> None:
    found, target = endpoint(address, "secret")
    assert found.name == api
    assert (target.host, target.port) == place
    assert target.path.endswith(("/messages", "/chat/completions"))
    assert target.path.count("/v1") == 1
    if path is not None:
        assert target.path == path
    if key is not None:
        assert dict(target.headers)[key].endswith(b"secret")
    assert not any(b"secret" in value for _, value in endpoint(address, "")[1].headers)


def test_a_question_goes_where_the_request_goes_with_its_credential() -> None:
    request = tutils.treq(
        method=b"POST",
        scheme=b"https",
        host="example.test",
        port=8443,
        path=b"/v1beta/models/x:streamGenerateContent?key=k&alt=sse&v=1",
    )
    request.headers.clear()
    for name, value in {
        "Host": "example.test:8443",
        "Authorization": "Bearer sk-1",
        "OpenAI-Organization": "o",
        "Content-Length": "12",
        "Content-Encoding": "zstd",
        "Accept-Encoding": "gzip",
        "Idempotency-Key": "i",
        "Connection": "x-hop",
        "X-Hop": "h",
        "Cookie": "c",
        "X-Stainless-Retry-Count": "0",
        "X-Claude-Code-Request-Class": "main",
        "X-Gateway-Token": "g",
    }.items():
        request.headers[name] = value
    target = target_of(request)
    assert (target.scheme, target.host, target.port) == ("https", "example.test", 8443)
    assert target.path == "/v1beta/models/x:streamGenerateContent"
    assert target.query == "?key=k&v=1"
    assert [name.lower() for name, _ in target.headers] == [
        b"host",
        b"authorization",
        b"openai-organization",
        b"x-gateway-token",
    ]


async def test_what_is_under_way_is_known_as_ours_and_later_no_more() -> None:
    asker = Asker(ssl.create_default_context)
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    with serving(Provider()) as provider:
        _, target = endpoint(f"http://127.0.0.1:{provider.plain_port}", "sk-1")
        asking = CHAT.asking
        assert asking is not None
        post = Post(target, target.path, body, asking.said, CHAT.usage_of)
        asked = asyncio.ensure_future(asker.ask(post, 10))
        await asyncio.sleep(0)
        assert asker.is_ours(body)
        assert not asker.is_ours(body + b" ")
        answer = await asked
    assert (answer.text, answer.fault) == ("Understood.", "")
    assert answer.usage is not None
    assert not asker.is_ours(body)


async def test_where_nobody_listens_there_is_no_connection() -> None:
    _, target = endpoint("http://127.0.0.1:9", "k")
    asking = MESSAGES.asking
    assert asking is not None
    post = Post(target, target.path, b"{}", asking.said, MESSAGES.usage_of)
    answer = await Asker(ssl.create_default_context).ask(post, 10)
    assert answer.fault == Trouble.CONNECTION
