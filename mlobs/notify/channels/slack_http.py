"""slack-sdk's client with an end to each of its requests, whatever the other side does.

The library's timeout is for each read: an answer that drips a byte at a time would hold a channel's thread
for as long as it likes. Here an alarm hangs up after the whole time, and a message that takes several
requests has a time for all of them.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import threading
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from slack_sdk import WebClient

MOST_ANSWER = 4 << 20
"""Bytes of an answer that are read: a page of a channel's history with metadata."""
REQUESTS_A_MESSAGE = 3
"""A message has as many timeouts of time as it usually takes requests: look, post, thread."""


class BoundedClient(WebClient):
    """One message's client: each request ends within `timeout` seconds, all of them within three times
    that. What comes too late raises TimeoutError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._until = time.monotonic() + REQUESTS_A_MESSAGE * self.timeout

    def may_go_on(self) -> bool:
        """Whether there is time for one more look, and for what is said after it."""
        return self._until - time.monotonic() > (REQUESTS_A_MESSAGE - 1) * self.timeout

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:  # noqa: ARG002
        """The one place where slack-sdk opens an address; the address is ours, checked to be http(s)."""
        left = min(float(self.timeout), self._until - time.monotonic())
        if left <= 0:
            raise TimeoutError("no time left for this message")
        lines: list[socket.socket] = []
        late = threading.Event()
        alarm = threading.Timer(left, _hang_up, (lines, late))
        alarm.daemon = True
        alarm.start()
        try:
            answer = self._ask(req, lines, left)
        except HTTPError:
            raise
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            # ValueError and AttributeError: http.client, when the alarm closes the socket under it
            if late.is_set():
                raise TimeoutError("the answer took too long") from None
            raise
        finally:
            alarm.cancel()
        if late.is_set():  # cut off in the middle
            raise TimeoutError("the answer took too long")
        return answer

    def _ask(self, req: Request, lines: list[socket.socket], timeout: float) -> dict[str, Any]:
        opener = build_opener(_Plain(lines), _Tls(lines, context=self.ssl), _Stay)
        try:
            with opener.open(req, timeout=timeout) as answer:
                status, headers, body = answer.status, answer.headers, answer.read(MOST_ANSWER)
        except HTTPError as problem:
            with problem:  # its body is read here, while the alarm runs
                content = problem.read(MOST_ANSWER)
            told = io.BytesIO(content)
            raise HTTPError(req.full_url, problem.code, problem.reason, problem.headers, told) from None
        return {"status": status, "headers": headers, "body": body.decode("utf-8", "replace")}


def _hang_up(lines: list[socket.socket], late: threading.Event) -> None:
    late.set()
    for line in lines:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed meanwhile: what we wanted


class _Stay(HTTPRedirectHandler):
    """No redirect is followed: the token would go along."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _PlainLine(http.client.HTTPConnection):
    def __init__(self, *args: Any, lines: list[socket.socket], **options: Any) -> None:
        super().__init__(*args, **options)
        self._lines = lines

    def connect(self) -> None:
        super().connect()
        self._lines.append(self.sock)


class _TlsLine(http.client.HTTPSConnection):
    def __init__(self, *args: Any, lines: list[socket.socket], **options: Any) -> None:
        super().__init__(*args, **options)
        self._lines = lines

    def connect(self) -> None:
        super().connect()
        self._lines.append(self.sock)


class _Plain(HTTPHandler):
    def __init__(self, lines: list[socket.socket]) -> None:
        super().__init__(debuglevel=0)  # else the one of http.client, which prints the token
        self._lines = lines

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_PlainLine, lines=self._lines), req)


class _Tls(HTTPSHandler):
    def __init__(self, lines: list[socket.socket], **options: Any) -> None:
        super().__init__(debuglevel=0, **options)
        self._lines = lines
        self._verified = options.get("context")

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        line = functools.partial(_TlsLine, lines=self._lines, context=self._verified)
        return self.do_open(line, req)
