"""What stands before every page: who may ask (Host header), and what a browser may do with the answer.

A stranger's page can make a browser ask for `http://its-name/`, resolve that name to 127.0.0.1 and read the
answer (DNS rebinding): so names are checked, not addresses. What nobody can register cannot be rebound: where
we listen beyond loopback, literal addresses, names without a dot (`mlobs`, as Compose and Kubernetes give)
and private top-level names are accepted.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})

_PRIVATE_SUFFIXES: Final = (".local", ".internal", ".svc")
"""Never in public DNS: RFC 6762, ICANN's `.internal` of 2024, Kubernetes' services."""

# Plotly sets style attributes and writes rules into the one style element that carries the nonce; nothing
# else inline runs, nothing comes from elsewhere, nobody frames us.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src-elem 'self' 'nonce-{nonce}'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def host_of(authority: str) -> str:
    """The host of `name:port`, `1.2.3.4`, `[::1]:9464`, lower case; empty for what is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address or a name that every machine gives to it."""
    if host in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def host_allowed(authority: str, listen: str, public_url: str | None) -> bool:
    """Whether a request that names `authority` in its Host header is one for us."""
    host = host_of(authority)
    if not host:
        return False
    if is_loopback(host):
        return True
    own = host_of(listen)
    if host == own or (public_url and host == host_of(urlsplit(public_url).netloc)):
        return True
    if is_loopback(own):
        return False
    return _address(host) is not None or "." not in host or host.endswith(_PRIVATE_SUFFIXES)


class Guard:
    """ASGI middleware: refuses foreign hosts, adds the security headers, hands templates a nonce."""

    def __init__(self, app: ASGIApp, listen: str, public_url: str | None) -> None:
        self.app = app
        self.listen = listen
        self.public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        authority = Headers(scope=scope).get("host", "")
        if not host_allowed(authority, self.listen, self.public_url):
            await self._refusal(scope, authority)(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)

    def _refusal(self, scope: Scope, authority: str) -> Response:
        text = (
            f"Host header: expected localhost, the host of `listen` or the host of `public_url`, "
            f"got {authority[:80]!r}; set `public_url` in mlobs.yaml to the address that people use"
        )
        if scope["path"].startswith("/api/"):
            return JSONResponse({"error": text}, status_code=421)
        return PlainTextResponse(text + "\n", status_code=421)
