"""Requests that are signed (SigV4): a byte of the body changed, and they are refused."""

from __future__ import annotations

import hashlib
import hmac

from loopback.http1 import Wire

MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS"
    " Secret Access Key and signing method. Consult the service documentation for details."
)


def signed(body: bytes, who: str = "AKIDLOOPBACK") -> str:
    """The `authorization` of somebody who signs a body. Its form is SigV4's, its sum is simple."""
    return (
        f"AWS4-HMAC-SHA256 Credential={who}/20261122/us-east-1/bedrock/aws4_request,"
        f" SignedHeaders=host;x-amz-date, Signature={_signature(body)}"
    )


def _signature(body: bytes) -> str:
    return hmac.new(b"secret", body, hashlib.sha256).hexdigest()


def is_forged(wire: Wire | None) -> bool:
    """Whether a request bears a signature that was made of another body."""
    said = wire.header("authorization") if wire else ""
    return wire is not None and said.startswith("AWS4-") and _signature(wire.body) not in said
