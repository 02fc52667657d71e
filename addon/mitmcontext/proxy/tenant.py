"""Whose conversation it is.

The tenant is where a request goes and the stable principal behind its credential, under a keyed
digest: what is kept of one tenant never serves another, and no credential is kept in any form but
that digest. Access tokens change in mid-session, so what a token says of its owner comes before
the token itself. Whoever forges that is refused by the provider.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

_ACCOUNT: Final = ("chatgpt-account-id", "openai-organization", "openai-project")
_KEYS: Final = ("sk-", "ABSK", "bedrock-api-key-")
_SIGNER: Final = re.compile(r"AWS4-[\w-]+ +Credential=([\w.-]+)/")
_MAY_BE: Final = re.compile(r"auth|key|token|secret|cookie|credential")
_CREDENTIAL: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


def tenant(
    key: bytes, scheme: str, host: str, port: int, headers: Mapping[str, str], in_query: str = ""
) -> bytes:
    """HMAC-SHA256 over length-prefixed fields: scheme, host, port and principal.

    `headers` have names in lower case. `in_query` is the query's `key`, by which Google's APIs
    take a credential, too.
    """
    fields = [scheme, host.lower(), str(port), *_principal(headers)]
    if in_query:
        fields += ["query", in_query]
    return keyed(key, (field.encode("utf-8", "surrogateescape") for field in fields))


def keyed(key: bytes, fields: Iterable[bytes]) -> bytes:
    """HMAC-SHA256 over length-prefixed fields, so that no two lists look alike."""
    framed = [part for field in fields for part in (len(field).to_bytes(8, "big"), field)]
    mac = _begun(key).copy()
    mac.update(b"".join(framed))
    return mac.digest()


@lru_cache(maxsize=8)
def _begun(key: bytes) -> hmac.HMAC:
    """To look up the digest's name and to take in the key is most of what it costs."""
    return hmac.new(key, digestmod="sha256")


@lru_cache(maxsize=1_000)
def keyed_before(key: bytes, fields: tuple[bytes, ...]) -> bytes:
    """As `keyed`, remembered: for what comes with each request and holds no credential."""
    return keyed(key, fields)


def is_subscription(headers: Mapping[str, str]) -> bool:
    """Whether the credential is a subscription's login and no API key.

    API keys come in a header of their own, or as a bearer token that begins with "sk-" (Bedrock's
    with "ABSK" or "bedrock-api-key-"); Claude's logins begin with "sk-ant-oat".
    """
    bearer = _bearer(headers)
    return bool(bearer) and (bearer.startswith("sk-ant-oat") or not bearer.startswith(_KEYS))


def _principal(headers: Mapping[str, str]) -> list[str]:
    account = [f"{name}={headers[name]}" for name in _ACCOUNT if headers.get(name)]
    if account:
        return ["account", *account]
    owner = _owner(_bearer(headers))
    if owner:
        return ["token", *owner]
    # A signature is another one on every request; who signs is not.
    if signer := _SIGNER.match(headers.get("authorization", "")):
        return ["signer", signer[1]]
    known = [name for name in _CREDENTIAL if name in headers]
    # Gateways have headers of their own; what may be a credential keeps tenants apart.
    names = known or sorted(name for name in headers if _MAY_BE.search(name))
    return ["credential", *(f"{name}={headers[name]}" for name in names)]


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _owner(token: str) -> list[str]:
    """Issuer and subject that a JSON web token claims; nothing where it is none."""
    pieces = token.split(".")
    if len(pieces) != 3:
        return []
    try:
        padded = pieces[1] + "=" * (-len(pieces[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
        issuer, subject = claims["iss"], claims["sub"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    both = isinstance(issuer, str) and isinstance(subject, str) and issuer and subject
    return [issuer, subject] if both else []
