"""The serving process of the demo: FastAPI on uvicorn, instrumented as the README tells it.

Run by the demo as `python -m mlobs.demo.serving FOLDER --fd N`. The two faults are caused here, where they
would happen: in the weather feed and in the inference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

import mlobs
from mlobs.demo.plan import SLOW_FAULT, SLOW_SECONDS, SLOW_SHARE, WEATHER_FAULT, Plan, make_plan
from mlobs.demo.scoring import Coefficients, encode, probability

MODEL = "flight-delay"
VERSION = "2013-03-01"

event_time: ContextVar[float] = ContextVar("event_time", default=0.0)
"""The replay runs on the event clock: now is when the flight was scheduled to leave."""


class Flight(BaseModel):
    """What the client knows at departure; the weather is read from the feed."""

    carrier: str
    origin: str
    dest: str
    flight: int
    distance: float
    hour: float
    departs: float


class WeatherFeed:
    """The upstream feature feed, with its fault."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._hours: dict[str, dict[str, float | None]] = json.loads(path.read_text())
        self._plan = plan

    def at(self, origin: str, t: float) -> dict[str, float | None]:
        values = self._hours.get(f"{origin} {int(t // 3600)}", {})
        if not self._plan.holds(WEATHER_FAULT, t):
            return values
        celsius = dict(values)
        for name in ("temp", "dewp"):
            fahrenheit = celsius.get(name)
            if fahrenheit is not None:
                celsius[name] = round((fahrenheit - 32) / 1.8, 2)
        return celsius


def is_slow(plan: Plan, flight: Flight) -> bool:
    """Whether the slow fault hits this request: the same ones in every run."""
    if not plan.holds(SLOW_FAULT, flight.departs):
        return False
    name = f"{flight.carrier}{flight.flight}{flight.origin}{flight.departs}"
    return zlib.crc32(name.encode()) / 2**32 < SLOW_SHARE


Predict = Callable[[Flight, str], Awaitable[float]]


def make_predict(model: Coefficients, feed: WeatherFeed, plan: Plan) -> Predict:
    """The instrumented predict function: the probability of a delay."""

    @mlobs.observe(model=MODEL, version=VERSION, prediction_id=lambda _flight, request_id: request_id)
    async def predict(flight: Flight, request_id: str) -> float:  # noqa: ARG001 - read by the extractor
        call = mlobs.current()
        with mlobs.stage("feature_read"):
            features = flight.model_dump(exclude={"flight", "departs"}) | feed.at(
                flight.origin, flight.departs
            )
            call.set_features(features)
            call.set_segment(flight.origin)
        with mlobs.stage("preprocess"):
            terms = encode(model, features)
        with mlobs.stage("inference"):
            if is_slow(plan, flight):
                await asyncio.sleep(SLOW_SECONDS)
            late = probability(terms)
        with mlobs.stage("postprocess"):
            call.set_decision(decide(model, late))
        return late

    return predict


def make_bare_predict(model: Coefficients, feed: WeatherFeed, plan: Plan) -> Predict:
    """The same without any instrumentation, for the benchmark that tells what it costs."""

    async def predict(flight: Flight, request_id: str) -> float:  # noqa: ARG001 - the same signature
        features = flight.model_dump(exclude={"flight", "departs"}) | feed.at(flight.origin, flight.departs)
        terms = encode(model, features)
        if is_slow(plan, flight):
            await asyncio.sleep(SLOW_SECONDS)
        late = probability(terms)
        decide(model, late)
        return late

    return predict


def decide(model: Coefficients, late: float) -> str:
    return "late" if late >= model.threshold else "on_time"


def create_app(folder: Path, instrumented: bool = True) -> FastAPI:
    """The service over what the demo laid out in `folder`: model, weather, plan and mlobs.yaml."""
    model = Coefficients.from_json(json.loads((folder / "model.json").read_text()))
    plan = make_plan(**json.loads((folder / "plan.json").read_text()))
    feed = WeatherFeed(folder / "weather.json", plan)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if instrumented:
            await asyncio.to_thread(mlobs.close)

    app = FastAPI(lifespan=lifespan)
    if instrumented:
        mlobs.init(folder / "mlobs.yaml", clock=event_time.get)
        app.mount("/metrics", mlobs.metrics_app())
    predict = (make_predict if instrumented else make_bare_predict)(model, feed, plan)

    @app.post("/score")
    async def score(flight: Flight) -> dict[str, Any]:
        event_time.set(flight.departs)
        request_id = uuid.uuid4().hex
        late = await predict(flight, request_id)
        return {"prediction_id": request_id, "late": late, "decision": decide(model, late)}

    @app.post("/flush")
    async def flush() -> dict[str, bool]:
        """Only a replay asks for this: it waits for each hour before it goes on."""
        return {"flushed": await asyncio.to_thread(mlobs.flush, 10.0)}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--bare", action="store_true", help="without instrumentation")
    arguments = parser.parse_args()
    app = create_app(arguments.folder, instrumented=not arguments.bare)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=arguments.fd)])


if __name__ == "__main__":
    main()
