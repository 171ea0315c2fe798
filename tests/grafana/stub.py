"""A Grafana of a few lines: what its HTTP API answers and refuses of dashboards and folders."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class State:
    """What the stub holds; `url` is its address, under a path as behind a proxy."""

    url: str = ""
    token: str = "glsa_secret"
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder_of: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    broken: tuple[int, str, str] | None = None
    """Status, content type and body to answer everything with."""
    migrates: bool = False
    """Newer servers store a dashboard in a later schema, with their defaults filled in."""

    def put(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        wanted = copy.deepcopy(body["dashboard"])
        uid = wanted.get("uid") or "made-up"
        folder = body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        have = self.dashboards.get(uid)
        if have is not None and not body.get("overwrite") and wanted.get("version") != have["version"]:
            text = "The dashboard has been changed by someone else"
            return 412, {"message": text, "status": "version-mismatch"}
        version = 1 if have is None else have["version"] + 1
        if self.migrates:
            wanted["schemaVersion"] = 41
            for panel in wanted["panels"]:
                panel["pluginVersion"] = "12.0.0"
        self.dashboards[uid] = {**wanted, "id": len(self.dashboards) + 1, "version": version}
        self.folder_of[uid] = folder
        return 200, {"uid": uid, "id": 1, "url": f"/d/{uid}", "status": "success", "version": version}


class _Handler(BaseHTTPRequestHandler):
    state: State

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any] | None) -> None:
        state = self.state
        path = self.path.removeprefix("/grafana/api")
        state.calls.append(f"{self.command} {path}")
        if state.broken is not None:
            status, kind, text = state.broken
            self._send(status, kind, text)
        elif self.headers.get("Authorization") != f"Bearer {state.token}":
            self._json(401, {"message": "Unauthorized"})
        elif body is None and path.startswith("/dashboards/uid/"):
            found = state.dashboards.get(path.rpartition("/")[2])
            if found is None:
                self._json(404, {"message": "Dashboard not found"})
            else:
                self._json(200, {"dashboard": found, "meta": {"version": found["version"]}})
        elif body is None and path.startswith("/folders/"):
            uid = path.rpartition("/")[2]
            if uid in state.folders:
                self._json(200, {"uid": uid, "title": state.folders[uid]})
            else:
                self._json(404, {"message": "folder not found", "status": "not-found"})
        elif path == "/folders" and body is not None:
            state.folders[body["uid"]] = body["title"]
            self._json(200, {"uid": body["uid"], "title": body["title"]})
        elif path == "/dashboards/db" and body is not None:
            self._json(*state.put(body))
        else:
            self._json(404, {"message": "Not found"})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value))

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", "/grafana/login")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def stub() -> Iterator[State]:
    """A running one on a free port."""
    state = State()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/grafana"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
