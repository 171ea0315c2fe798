"""Slack, PagerDuty and a webhook receiver on a port of this machine, with faults on demand.

They speak the real protocols as far as the channels use them and keep what they were told. `fail` queues
faults; each request takes one. What was accepted before a fault (`timeout after accept`) counts as received.
"""

from __future__ import annotations

import base64
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
        self.clock = time.time()
        """When the last message came; microseconds tell them apart, as Slack's do."""

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Messages of the channel itself."""
        return [one for one in self.messages.values() if "thread_ts" not in one]

    @property
    def ours(self) -> list[dict[str, Any]]:
        """Those of them that mlobs sent."""
        return [one for one in self.shown if one.get("metadata")]

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
        ts = self.next_ts()
        self.messages[ts] = {**fields, "ts": ts}
        return {"ok": True, "channel": self.channel_id, "ts": ts, "message": fields}

    def next_ts(self) -> str:
        self.clock = max(time.time(), self.clock + 1e-6)
        return f"{self.clock:.6f}"

    def others_say(self, number: int, at: float | None = None) -> None:
        """So many messages of other people, now or at `at`."""
        for count in range(number):
            ts = self.next_ts() if at is None else f"{at + count * 1e-6:.6f}"
            self.messages[ts] = {"ts": ts, "text": "something else"}

    def _update(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("ts") not in self.messages:
            return {"ok": False, "error": "message_not_found"}
        self.messages[fields["ts"]] |= fields
        return {"ok": True, "channel": self.channel_id, "ts": fields["ts"]}

    def _history(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The newest first, a page at a time; a cursor names the message at which the next page begins."""
        oldest = float(fields.get("oldest") or 0)
        newest = sorted((one for one in self.told if float(one["ts"]) > oldest), key=_when, reverse=True)
        return _one_page(newest, fields, int(fields.get("limit", 100)))

    def _replies(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The oldest first, the thread's first message with each answer; two at a time, as if the limit were
        so low."""
        oldest = float(fields.get("oldest") or 0)
        thread = [one for one in self.messages.values() if one.get("thread_ts") == fields["ts"]]
        lines = sorted((one for one in thread if float(one["ts"]) > oldest), key=_when)
        answer = _one_page(lines, fields, 2)
        first = self.messages.get(fields["ts"])
        if first is None:
            return {"ok": False, "error": "thread_not_found"}
        return {**answer, "messages": [_seen(first), *answer["messages"]]}

    def _list(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "channels": [{"id": self.channel_id, "name": "oncall"}], "response_metadata": {}}


def _when(one: dict[str, Any]) -> float:
    return float(one["ts"])


def _seen(one: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "ts": one["ts"], "metadata": one.get("metadata")}


def _one_page(messages: list[dict[str, Any]], fields: dict[str, Any], limit: int) -> dict[str, Any]:
    start = 0
    if fields.get("cursor"):
        try:
            ts = base64.b64decode(fields["cursor"]).decode().removeprefix("next_ts:")
            start = [one["ts"] for one in messages].index(ts)
        except ValueError:
            return {"ok": False, "error": "invalid_cursor"}
    rest = messages[start + limit :]
    after = base64.b64encode(f"next_ts:{rest[0]['ts']}".encode()).decode() if rest else ""
    return {
        "ok": True,
        "messages": [_seen(one) for one in messages[start : start + limit]],
        "has_more": bool(rest),
        "response_metadata": {"next_cursor": after},
    }


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
