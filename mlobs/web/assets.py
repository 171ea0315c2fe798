"""Style, script and the chart library, served by us: the page works on a machine without a network.

The chart library is plotly.js out of the installed wheel. Its address carries its digest, so a browser keeps
it for good, and it is compressed once: 1.4 MB instead of 4.8 on the way to a phone.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import plotly.offline
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class Asset(NamedTuple):
    path: str
    """Below `/static/`, with the digest in it."""
    media_type: str
    body: bytes
    gzipped: bytes


def _asset(name: str, body: bytes, level: int = 9) -> Asset:
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.blake2b(body, digest_size=6).hexdigest()
    return Asset(f"{stem}-{digest}.{suffix}", _TYPES[dot + suffix], body, gzip.compress(body, level, mtime=0))


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """By plain name: `mlobs.css`, `mlobs.js`, `plotly.js`. About 0.3 s of CPU, once a process."""
    here = files("mlobs.web") / "static"
    found = {name: _asset(name, (here / name).read_bytes()) for name in ("mlobs.css", "mlobs.js")}
    found["plotly.js"] = _asset("plotly.js", plotly.offline.get_plotlyjs().encode("utf-8"), level=6)
    return found


def asset_url(name: str) -> str:
    return f"/static/{assets()[name].path}"


@lru_cache(maxsize=1)
def style_ids() -> tuple[str, ...]:
    """Ids of the style elements that plotly.js makes unless they exist: our policy lets no script make one.

    The first is filled by script, which a nonce permits; the others belong to maps, which we do not draw.
    """
    text = assets()["plotly.js"].body.decode("utf-8")
    guarded = re.findall(r'if\(!document\.getElementById\("([0-9a-f]{64})"\)\)', text)
    return ("plotly.js-style-global", *sorted(set(guarded)))


def endpoint() -> Callable[[Request], Response]:
    """Answers `/static/{path}`; only what `assets()` lists can be reached, no file system behind it."""
    by_path = {asset.path: asset for asset in assets().values()}

    def serve(request: Request) -> Response:
        asset = by_path.get(request.path_params["path"])
        if asset is None:
            return PlainTextResponse("not found\n", status_code=404)
        packed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        return Response(asset.gzipped if packed else asset.body, headers=headers, media_type=asset.media_type)

    return serve
