"""A running Grafana over its HTTP API, through grafana-client. By uid, so that doing it twice is once."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from mlobs.errors import MissingExtraError, Problem, UnavailableError, UsageError, shown
from mlobs.grafana.changes import UNCHANGED, Change, change
from mlobs.secret import Secret

FOLDER: Final = "mlobs"
TAG: Final = "mlobs"
_TIMEOUT = 10.0


class Grafana:
    """One Grafana. Its methods raise UsageError for what they refuse, UnavailableError for what failed."""

    def __init__(self, url: str, token: Secret | None, *, allow_http: bool = False) -> None:
        try:
            from grafana_client import GrafanaApi  # an extra
            from grafana_client.client import TokenAuth
        except ModuleNotFoundError:
            raise MissingExtraError.for_extra("mlobs grafana", "grafana") from None
        checked = _checked(url, token is not None, allow_http)
        credential = TokenAuth(token.reveal()) if token is not None else None
        self._api = GrafanaApi.from_url(checked, credential=credential, timeout=_TIMEOUT)
        # A redirect leads to a log-in form as a rule, and no API answers there.
        self._api.client.s.max_redirects = 0
        self._where = f"Grafana at {checked}"

    def dashboard(self, uid: str) -> Mapping[str, Any] | None:
        """The dashboard as it is stored, or None."""
        found = self._ask("GET", f"/dashboards/uid/{uid}", absent=True)
        if found is None:
            return None
        if not isinstance(found.get("dashboard"), dict):
            self._fail("a dashboard", shown(found))
        return found["dashboard"]  # type: ignore[no-any-return]

    def plan(self, wanted: Mapping[str, Any]) -> Change:
        """What `provision` would do."""
        existing = self.dashboard(str(wanted["uid"]))
        if existing is not None and TAG not in (existing.get("tags") or ()):
            raise UsageError.of(
                f"{self._where}: dashboard {wanted['uid']}",
                f"one with the tag {TAG!r}",
                f"another, titled {shown(existing.get('title'))}",
                "it is not ours to replace: delete it, tag it, or name the service otherwise",
            )
        return change(wanted, existing)

    def provision(self, wanted: Mapping[str, Any], folder: str = FOLDER) -> Change:
        """Create or update `wanted` in `folder`, unless it stands there already; says what was done."""
        planned = self.plan(wanted)
        if planned.kind == UNCHANGED:
            return planned
        self._ensure_folder(folder)
        existing = self.dashboard(planned.uid)
        # With its version, and without overwrite: somebody who saved in between is not overwritten unseen.
        version = {"version": existing["version"]} if existing is not None and "version" in existing else {}
        body = {
            "dashboard": {**wanted, "id": None, **version},
            "folderUid": folder,
            "message": "mlobs grafana provision",
            "overwrite": False,
        }
        self._ask("POST", "/dashboards/db", body)
        return planned

    def _ensure_folder(self, uid: str) -> None:
        if self._ask("GET", f"/folders/{uid}", absent=True) is None:
            self._ask("POST", "/folders", {"uid": uid, "title": uid})

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, absent: bool = False
    ) -> Any:
        """The answer's JSON object; None for a 404 where `absent` allows it."""
        import requests  # comes with grafana-client
        from grafana_client.client import GrafanaException

        try:
            answer = getattr(self._api.client, method)(path, json=body)
        except GrafanaException as problem:
            if absent and problem.status_code == 404:
                return None
            self._refused(problem.status_code, problem.message)
        except requests.exceptions.TooManyRedirects:
            self._fail("an answer of its API", "a redirect")
        except requests.exceptions.JSONDecodeError:
            self._fail("JSON", "something else")
        except requests.exceptions.RequestException as problem:
            self._fail("an answer", type(problem).__name__)
        if not isinstance(answer, dict):
            self._fail("a JSON object", shown(answer))
        return answer

    def _refused(self, status: int, message: object) -> NoReturn:
        remedies = {
            401: "give a service account's token by --token-file or MLOBS_GRAFANA_TOKEN",
            403: "give the service account the role Editor",
            412: "somebody saved it meanwhile, or its title is taken: look at `mlobs grafana diff`",
        }
        self._fail("success", f"{status} {str(message)[:120]}", remedies.get(status))

    def _fail(self, expected: str, got: str, remedy: str | None = None) -> NoReturn:
        remedy = remedy or "check the address, and that it is Grafana which answers there"
        raise UnavailableError(Problem(self._where, expected, got, remedy))


def _checked(url: str, with_token: bool, allow_http: bool) -> str:
    """`url` with a slash at its end, which the client wants for a Grafana under a path."""
    where, remedy = "--url", "write it like https://grafana.example.com"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UsageError.of(
            where, "an http or https address without a query", shown(url.rpartition("@")[2]), remedy
        )
    if parts.username or parts.password:
        raise UsageError.of(
            where, "no password in the address", "one", "use --token-file: it is not shown in ps"
        )
    if parts.scheme == "http" and with_token and not allow_http and not _is_loopback(host):
        raise UsageError.of(
            where,
            "https, as a token is sent",
            "http",
            "use https, or --allow-http in a network that you trust",
        )
    return url if url.endswith("/") else f"{url}/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
