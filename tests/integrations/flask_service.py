"""A Flask service as a user writes it, for gunicorn."""

from collections.abc import Iterator

from flask import Flask, Response

import mlobs
from mlobs.integrations.wsgi import MlobsMiddleware
from mlobs.sdk.serve import render

mlobs.init(service="flask-api")
app = Flask(__name__)
app.wsgi_app = MlobsMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@mlobs.observe(model="m")
def predict(item: int) -> str:
    return str(mlobs.current().trace_id)


@app.get("/items/<int:item>")
def item(item: int) -> str:
    return predict(item)


@app.get("/stream/<name>")
def stream(name: str) -> Response:
    def body() -> Iterator[str]:
        yield "a"
        yield predict(1)

    return Response(body())


@app.get("/boom")
def boom() -> str:
    raise RuntimeError("no")


@app.get("/metrics")
def metrics() -> Response:
    body, kind = render("")
    return Response(body, content_type=kind)
