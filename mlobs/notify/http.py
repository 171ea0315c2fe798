"""One POST to an address that the operator named, and nowhere else.

No redirect is followed. The name is resolved here, every address of it is judged, and the connection goes
to a judged address, so that a name that changes between look and call leads nowhere. An overall deadline
ends answers that drip. Nothing is logged: addresses of webhooks are secrets.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlobs.errors import ConfigError, Problem
from mlobs.notify.retry import Outcome, Reason

MOST_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What may be called. The default: https to public addresses."""

    allow_http: bool = False
    allow_private: bool = False
    """Loopback and private networks; link-local (where clouds keep their metadata) stays refused."""
    hosts: frozenset[str] = frozenset()
    """Names or addresses that may be anything."""
    ca_file: str | None = None
    """PEM file of the authorities to trust instead of the system's."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class NotSentError(Exception):
    """No usable answer. `outcome` says why; it never holds the address."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail or str(outcome.reason))
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Target:
    """An address taken apart; its repr hides the path, where tokens live."""

    tls: bool
    host: str
    port: int
    path: str

    def __repr__(self) -> str:
        return f"<{'https' if self.tls else 'http'} target>"

    __str__ = __repr__


def parse_target(url: str, field: str, allowed: Addresses) -> Target:
    """Take `url` apart. Raises ConfigError, naming `field` and never the address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(
            Problem(field, "an http or https address", "<hidden>", "mend the address")
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError(
            Problem(field, "https://host/path without user and password", "<hidden>", "mend the address")
        )
    if parts.scheme == "http" and not allowed.allow_http:
        raise ConfigError(
            Problem(field, "https", "http", "use https, or set allow_http: true for this channel")
        )
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(one.isspace() or not one.isprintable() for one in path):
        raise ConfigError(Problem(field, "a percent-encoded path", "<hidden>", "encode the address"))
    return Target(tls, parts.hostname, port or (443 if tls else 80), path)


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allowed: Addresses,
    timeout: float,
) -> Reply:
    """POST and read at most `MOST_ANSWER` bytes, all within `timeout` seconds. Raises NotSentError."""
    address = _judged_address(target, allowed)
    connection = _Pinned(target, address, timeout, allowed.ca_file)
    late = threading.Event()
    alarm = threading.Timer(timeout, _hang_up, (connection, late))
    alarm.daemon = True
    alarm.start()
    written = False
    try:
        connection.connect()
        connection.request("POST", target.path, body=body, headers={**headers, "Connection": "close"})
        written = True
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        try:
            content = answer.read(MOST_ANSWER)
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            content = b""  # the status has said what became of the message
        return Reply(answer.status, found, content)
    except TimeoutError:
        raise NotSentError(_lost(Reason.TIMEOUT, written, "no answer in time")) from None
    except ssl.SSLError:
        raise NotSentError(_lost(Reason.CONNECTION, written, "TLS failed")) from None
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as problem:
        # ValueError and AttributeError: http.client, when the alarm closes the socket under it
        if late.is_set():
            raise NotSentError(_lost(Reason.TIMEOUT, written, "no answer in time")) from None
        raise NotSentError(_lost(Reason.CONNECTION, written, type(problem).__name__)) from None
    finally:
        alarm.cancel()
        connection.close()


def is_permitted(address: str, allowed: Addresses) -> bool:
    """Whether a numeric address may be called. Embedded IPv4 addresses are judged as such."""
    try:
        ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if str(ip) in allowed.hosts:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner if inner is not None else ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA:
        return False
    return ip.is_global or (allowed.allow_private and (ip.is_private or ip.is_loopback))


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})


class _Pinned(http.client.HTTPConnection):
    """A connection to one judged address, with the name in TLS and Host."""

    debuglevel = 0  # ours, whatever a process turns on for everybody: it prints addresses and bodies

    def __init__(self, target: Target, address: str, timeout: float, ca_file: str | None) -> None:
        super().__init__(target.host, target.port, timeout=timeout)
        self._target = target
        self._address = address
        self._ca_file = ca_file
        self.default_port = 443 if target.tls else 80
        self.line: socket.socket | None = None
        """The socket; `sock` is taken away by the answer when the connection is to close."""

    def connect(self) -> None:
        self.line = self.sock = socket.create_connection((self._address, self._target.port), self.timeout)
        if self._target.tls:
            context = ssl.create_default_context(cafile=self._ca_file)
            wrapped = context.wrap_socket(
                self.sock, server_hostname=self._target.host, do_handshake_on_connect=False
            )
            self.line = self.sock = wrapped
            wrapped.do_handshake()

    def hang_up(self) -> None:
        """From another thread: whatever waits on the socket ends."""
        if self.line is not None:
            try:
                self.line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed meanwhile: what we wanted


def _judged_address(target: Target, allowed: Addresses) -> str:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotSentError(_lost(Reason.CONNECTION, False, "the name does not resolve")) from None
    addresses = [str(one[4][0]) for one in found]
    if target.host in allowed.hosts:
        return addresses[0]
    if not all(is_permitted(one, allowed) for one in addresses):
        # one bad address among good ones is how a name is turned against us: refuse it whole
        raise NotSentError(Outcome(False, Reason.ADDRESS_REFUSED, detail="a private or reserved address"))
    return addresses[0]


def _lost(reason: Reason, written: bool, detail: str) -> Outcome:
    return Outcome(False, reason, retry=True, uncertain=written, whole_channel=True, detail=detail)


def _hang_up(connection: _Pinned, late: threading.Event) -> None:
    late.set()
    connection.hang_up()
