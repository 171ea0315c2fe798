"""`POST /api/tick`: a replay drives the stages by the event clock. Loopback only, with `clock: driven` only.

One tick runs at a time, in a worker thread, so that pages stay readable while a long one works.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlobs.errors import MlobsError, shown
from mlobs.web.guard import is_loopback
from mlobs.web.plain import plain

Tick = Callable[[float], Mapping[str, Any]]
"""Advances the stages to an event time and says what that did."""

_LARGEST_BODY: Final = 4096
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")


class Refused(Exception):
    """The request is not answered with a tick; `status` and `text` say why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class TickEndpoint:
    """`{"now": seconds}` in, what the tick did out."""

    def __init__(self, tick: Tick, clock: str) -> None:
        self._tick = tick
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        try:
            self._check_caller(request)
            now = _moment(await _body(request))
            async with self._one_at_a_time:
                done = await run_in_threadpool(self._tick, now)
        except Refused as refusal:
            return JSONResponse({"error": refusal.text}, status_code=refusal.status)
        except MlobsError as problem:
            return JSONResponse({"error": str(problem)}, status_code=503)
        return JSONResponse(plain(done))

    def _check_caller(self, request: Request) -> None:
        if self._clock != "driven":
            raise Refused(409, "`clock` is not `driven`: mlobs serve ticks by itself")
        # A proxy on this machine would make every caller look like loopback.
        if any(name in request.headers for name in _FORWARDED):
            raise Refused(403, "a forwarded request: ticks are taken from this machine only")
        if request.client is None or not is_loopback(request.client.host):
            raise Refused(403, "ticks are taken from loopback only")
        # A browser cannot send JSON to another site without asking first, and we never allow it.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "expected Content-Type: application/json")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise Refused(413, f'expected {{"now": seconds}}, got more than {_LARGEST_BODY} bytes')
    return bytes(body)


def _moment(body: bytes) -> float:
    expected = 'expected {"now": seconds since the epoch}'
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, f"{expected}, got no JSON") from None
    if not isinstance(value, dict) or set(value) != {"now"}:
        raise Refused(400, f"{expected}, got {shown(value)}")
    now = value["now"]
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise Refused(400, f"{expected}, got {shown(now)}")
    try:
        now = float(now)
    except OverflowError:
        now = math.inf
    # Up to the year 9999: beyond it no calendar can say when that is.
    if not math.isfinite(now) or not 0 <= now < 253402300800:
        raise Refused(400, f"{expected}, got a time outside the years 1970 to 9999")
    return now
