"""Slack, PagerDuty and a webhook receiver on a port of this machine, with faults on demand.

They speak the real protocols as far as the channels use them and keep what they were told. `fail` queues
faults; each request takes one. What was accepted before a fault (`timeout after accept`) counts as received.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass(frozen=True)
class Fault:
    """`status` answers so; `accept` handles the request first; `hang` says nothing for seconds; `reset`
    cuts the connection; `drip` sends the answer a byte at a time; `answer` is a JSON body in place of the
    right one."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    accept: bool = False
    hang: float = 0.0
    reset: bool = False
    drip: float = 0.0
    answer: dict[str, Any] | None = None


def too_many(retry_after: str) -> Fault:
    return Fault(429, (("Retry-After", retry_after),), answer={"ok": False, "error": "ratelimited"})


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON or as a form."""
        if "json" in self.headers.get("content-type", ""):
            return json.loads(self.body)
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Stub:
    """A server and what it was told. `handle` turns a request into (status, JSON)."""

    handle: Callable[[Request], tuple[int, dict[str, Any]]]
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, *faults: Fault) -> None:
        self.faults.extend(faults)

    def _take(self) -> Fault | None:
        with self.lock:
            return self.faults.pop(0) if self.faults else None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        if len(body) < length:
            return  # its sender died in the middle: a real server would not act on it either
        request = Request(
            handler.path,
            {name.lower(): value for name, value in handler.headers.items()},
            body,
            time.monotonic(),
        )
        fault = self._take()
        with self.lock:
            self.requests.append(request)
            if (
                fault is None
                or fault.accept
                or (fault.status == 200 and fault.answer is None and not fault.reset)
            ):
                status, content = self.handle(request)
            if fault is not None and not (fault.accept and fault.status == 200):
                status, content = fault.status, fault.answer if fault.answer is not None else {}
        if fault is not None and fault.hang:
            self.released.wait(fault.hang)
        if fault is not None and fault.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        answer = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json; charset=utf-8")
        handler.send_header("Content-Length", str(len(answer)))
        for name, value in fault.headers if fault else ():
            handler.send_header(name, value)
        handler.end_headers()
        if fault is not None and fault.drip:
            for one in answer:
                handler.wfile.write(bytes([one]))
                handler.wfile.flush()
                if self.released.wait(fault.drip):
                    break
            return
        handler.wfile.write(answer)


class Slack:
    """chat.postMessage, chat.update, conversations.history and conversations.list of one workspace."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        """By ts, threads too, as they read now."""
        self.stub = Stub(self._handle)
        self.channel_id = "C0123456789"
        self._clock = 1700000000

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Messages of the channel itself."""
        return [one for one in self.messages.values() if "thread_ts" not in one]

    @property
    def told(self) -> list[dict[str, Any]]:
        """What notifies the channel: its messages, and lines of threads that are shown there too."""
        return [one for one in self.messages.values() if "thread_ts" not in one or one["reply_broadcast"]]

    def calls(self, method: str) -> list[Request]:
        return [one for one in self.stub.requests if one.path.endswith("/" + method)]

    def _handle(self, request: Request) -> tuple[int, dict[str, Any]]:
        if request.headers.get("authorization") != "Bearer xoxb-right":
            return 200, {"ok": False, "error": "invalid_auth"}
        fields = request.fields
        method = request.path.rpartition("/")[2]
        act = {
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
            "conversations.list": self._list,
        }.get(method)
        return (200, act(fields)) if act else (200, {"ok": False, "error": "unknown_method"})

    def _post(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("channel") not in ("#oncall", self.channel_id):
            return {"ok": False, "error": "channel_not_found"}
        if len(fields.get("blocks", [])) > 50:
            return {"ok": False, "error": "invalid_blocks"}
        self._clock += 1
        ts = f"{self._clock}.000100"
        self.messages[ts] = {**fields, "ts": ts}
        return {"ok": True, "channel": self.channel_id, "ts": ts, "message": fields}

    def _update(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("ts") not in self.messages:
            return {"ok": False, "error": "message_not_found"}
        self.messages[fields["ts"]] |= fields
        return {"ok": True, "channel": self.channel_id, "ts": fields["ts"]}

    def _history(self, fields: dict[str, Any]) -> dict[str, Any]:
        newest = [
            {"type": "message", "ts": one["ts"], "metadata": one.get("metadata")}
            for one in reversed(self.told)
        ]
        return {"ok": True, "messages": newest[: int(fields.get("limit", 100))]}

    def _replies(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Two at a time, as if the limit were so low."""
        thread = [
            {"type": "message", "ts": one["ts"], "metadata": one.get("metadata")}
            for one in self.messages.values()
            if fields["ts"] in (one["ts"], one.get("thread_ts"))
        ]
        start = int(fields.get("cursor") or 0)
        after = str(start + 2) if start + 2 < len(thread) else ""
        part = thread[start : start + 2]
        return {"ok": True, "messages": part, "response_metadata": {"next_cursor": after}}

    def _list(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "channels": [{"id": self.channel_id, "name": "oncall"}], "response_metadata": {}}


class PagerDuty:
    """Events API v2: incidents by dedup key."""

    def __init__(self) -> None:
        self.stub = Stub(self._handle)
        self.incidents: dict[str, list[str]] = {}
        self.triggered = 0
        """Notifications: a trigger of an open key is none."""

    def _handle(self, request: Request) -> tuple[int, dict[str, Any]]:
        fields = request.fields
        if fields.get("routing_key") != "r" * 32:
            return 400, {"status": "invalid event", "errors": ["Invalid routing key"]}
        payload = fields.get("payload", {})
        trigger = fields.get("event_action") == "trigger"
        if trigger and not (payload.get("summary") and payload.get("source") and payload.get("severity")):
            return 400, {"status": "invalid event", "message": "Event object is invalid"}
        actions = self.incidents.setdefault(fields["dedup_key"], [])
        if trigger and (not actions or actions[-1] == "resolve"):
            self.triggered += 1
        actions.append(fields["event_action"])
        return 202, {"status": "success", "message": "Event processed", "dedup_key": fields["dedup_key"]}


def receiver() -> Stub:
    """A webhook receiver that accepts everything."""
    return Stub(lambda request: (200, {"ok": True}))


@contextmanager
def serving(stub: Stub, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """The stub on a port that the kernel chose; `stub.url` has no slash at its end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                stub.answer(self)
            except OSError:
                self.close_connection = True  # the client went first

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a reset is what was asked for
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    stub.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        stub.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
