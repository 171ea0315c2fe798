"""A Flask service as a user writes it, for gunicorn."""

from collections.abc import Iterator

from flask import Flask, Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import mlobs
from mlobs.integrations.wsgi import MlobsMiddleware

mlobs.init(service="flask-api")
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
    MlobsMiddleware(app.wsgi_app), {"/metrics": mlobs.metrics_wsgi_app()}
)


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
