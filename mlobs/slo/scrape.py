"""Targets -> text, several at once: static URLs, files in `file_sd` format, names in DNS.

A list that cannot be read, or a name that does not resolve, leaves the last known targets in place: a
broken file must not blind the scraper.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlobs.errors import MlobsError
from mlobs.yamltext import parse_yaml

Fetch = Callable[[str], "bytes | str"]
"""Text that a URL answers. Any exception is a failed scrape."""
Resolve = Callable[[str, int], Iterable[str]]
"""Addresses of a host name."""

_FILES = (".json", ".yaml", ".yml")
_AT_ONCE = 16
_DNS = "dns+"


class Scraper:
    """Knows the targets of now, and fetches them all."""

    def __init__(
        self, targets: Sequence[str], fetch: Fetch, base: str = ".", resolve: Resolve | None = None
    ) -> None:
        self._targets = tuple(targets)
        self._fetch = fetch
        self._base = Path(base)
        self._resolve = resolve or _addresses
        self._known: dict[str, tuple[str, ...]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mlobs-scrape")
        self.problems: dict[str, str] = {}
        """By source what kept it from being read at the last `urls()`; its last known targets stay."""

    def urls(self) -> list[str]:
        """Every target's URL, in order and once."""
        found: dict[str, None] = {}
        self.problems = {}
        for source in self._targets:
            if _is_static(source):
                found[source] = None
                continue
            try:
                self._known[source] = tuple(self._expand(source))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, MlobsError) as problem:
                self.problems[source] = f"{type(problem).__name__}: {problem}"[:300]
            found.update(dict.fromkeys(self._known.get(source, ())))
        return list(found)

    def fetch_all(self, urls: Sequence[str]) -> list[tuple[str, bytes | str | Exception]]:
        """The text of each target or why there is none; dead targets wait side by side."""
        if len(urls) == 1:
            return [(urls[0], self._try(urls[0]))]
        return list(zip(urls, self._pool.map(self._try, urls), strict=True))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, url: str) -> bytes | str | Exception:
        try:
            return self._fetch(url)
        except Exception as problem:  # noqa: BLE001 - any failure of a target is a state of it, counted by the caller
            return problem

    def _expand(self, source: str) -> Iterable[str]:
        if source.startswith(_DNS):
            return self._from_dns(source.removeprefix(_DNS))
        path = Path(unquote(urlsplit(source).path)) if source.startswith("file:") else self._base / source
        return file_sd(path.read_text(encoding="utf-8"), str(path))

    def _from_dns(self, url: str) -> Iterable[str]:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"{url[:80]!r} names no host")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        for address in sorted(set(self._resolve(parts.hostname, port))):
            host = f"[{address}]" if ":" in address else address
            yield f"{parts.scheme}://{host}:{port}{parts.path or '/metrics'}"


def file_sd(text: str, source: str) -> list[str]:
    """URLs of a Prometheus `file_sd` document: `[{targets: [host:port], labels: {...}}]`, as JSON or YAML.

    `__scheme__` and `__metrics_path__` are honoured. Raises ValueError or ConfigError for anything else.
    """
    groups = json.loads(text) if source.endswith(".json") else parse_yaml(text, source).value
    if not isinstance(groups, list):
        raise ValueError(f"{source} is no list of target groups")
    found = []
    for group in groups:
        labels = group.get("labels") or {}
        scheme, path = labels.get("__scheme__", "http"), labels.get("__metrics_path__", "/metrics")
        found += [f"{scheme}://{target}{path}" for target in group["targets"]]
    return found


def _is_static(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _addresses(host: str, port: int) -> Iterable[str]:
    return {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
