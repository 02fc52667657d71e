"""What a tool's environment needs for the tool to go through the proxy and to trust its CA.

Whoever starts the proxy prints it, whoever starts a tool sets it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import certifi

ROOT = Path(__file__).resolve().parents[2]
CONFDIR = ROOT / ".mitmproxy"
CACHE = ROOT / ".cache"
HOST, PORT = "127.0.0.1", 8080
RUNNING = "mitmcontext is running."  # the first of the lines that a started proxy prints at once

# Where systems keep the authorities they trust, as one file.
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat
    "/etc/pki/tls/certs/ca-bundle.crt",  # older Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, the BSDs
)
CA_NAME = "mitmproxy-ca-cert.pem"
BUNDLE_NAME = "mitmcontext-ca-bundle.pem"

# What names a file of all authorities to trust. Agents run git, and its library looks nowhere else.
REPLACING = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
# Each is read by one tool before any of those, so it matters only where it is set.
RARE = (
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "PIP_CERT",
)


class Trust(NamedTuple):
    """The proxy's authority alone, and together with what the system trusts."""

    ca: Path
    bundle: Path

    @classmethod
    def of(cls, folder: Path) -> Trust:
        """What lies in a confdir."""
        ca, bundle = folder / CA_NAME, folder / BUNDLE_NAME
        return cls(ca if ca.exists() else bundle, bundle)  # a CA of the user's own has no name


def ways(proxy: str) -> dict[str, str]:
    """Where requests go."""
    return {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": "localhost,127.0.0.1"}


def in_lower_case(variables: Mapping[str, str]) -> dict[str, str]:
    """The same under the names that win over the upper-case ones in many tools."""
    return {name.lower(): value for name, value in variables.items()}


def added(trust: Trust) -> dict[str, str]:
    """For tools that add an authority to what they trust; and Node looks at the proxy's names."""
    ca = str(trust.ca)
    return {"NODE_EXTRA_CA_CERTS": ca, "CODEX_CA_CERTIFICATE": ca, "NODE_USE_ENV_PROXY": "1"}


def replaced(trust: Trust, environment: Mapping[str, str]) -> dict[str, str]:
    """For tools that trust nothing else any more; of the rarer names those that are in use."""
    rare = (name for name in RARE if name in environment)
    return dict.fromkeys((*REPLACING, *rare), str(trust.bundle))


def for_a_command(environment: Mapping[str, str], proxy: str, trust: Trust) -> dict[str, str]:
    """An environment with all of it. Some tools read one case of a name only."""
    found = {**environment, **ways(proxy), **in_lower_case(ways(proxy)), **added(trust)}
    # A proxy for everything, where there is one, would take what has no name of its own.
    found |= {name: proxy for name in ("ALL_PROXY", "all_proxy") if name in environment}
    return found | replaced(trust, environment)


def write_bundle(folder: Path, ca: bytes, environment: Mapping[str, str]) -> None:
    """Write the system's authorities and the proxy's, for variables that replace the system's."""
    bundle = folder / BUNDLE_NAME
    unfinished = bundle.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(system_roots(environment).rstrip(b"\n") + b"\n" + ca)
    unfinished.replace(bundle)


def system_roots(environment: Mapping[str, str]) -> bytes:
    """What this machine trusts: as its user has set it, else as the system has, else Mozilla's."""
    own = environment.get("SSL_CERT_FILE", "")
    # Started from a shell that has our lines: that bundle is a result, not a source.
    candidates = [own] if own and Path(own).name != BUNDLE_NAME else []
    for candidate in (*candidates, *SYSTEM_ROOTS):
        try:
            roots = Path(candidate).read_bytes()
        except OSError:
            continue
        if b"BEGIN CERTIFICATE" in roots:
            return roots
    return Path(certifi.where()).read_bytes()
