"""Trace and prediction ids in the host's own logs, so that a log line leads to its trace and its record.

    handler.addFilter(mlobs.LogFilter())                       # logging: record.trace_id, .span_id, ...
    handler.setFormatter(mlobs.JsonFormatter(service="fraud-api"))      # one line of ECS JSON each
    structlog.configure(processors=[mlobs.structlog_ids, ...])  # structlog

The ids are those of the running call. The prediction id is there only where it exists already: a log line
makes none. Outside of any call nothing is added. Nothing here raises into the host.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

from mlobs import names
from mlobs.featurelog.freetext import card_number, veiled, without_cards
from mlobs.sdk.api import default_runtime
from mlobs.sdk.call import CURRENT, USE, Call
from mlobs.sdk.trace import INCOMING

TRACE_ID, SPAN_ID, PREDICTION_ID, MODEL = "trace_id", "span_id", "prediction_id", "model"

ECS_VERSION = "8.11.0"
_ECS = {TRACE_ID: "trace.id", SPAN_ID: "span.id", PREDICTION_ID: names.ATTR_PREDICTION_ID,
        MODEL: names.ATTR_MODEL_NAME}  # fmt: skip
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", *_ECS}
_DEEPEST = 6


def running_ids() -> dict[str, str]:
    """What is known of the running call: trace_id, span_id, prediction_id, model; those that exist.

    A prediction id that holds a card number, an e-mail address, an IBAN or a key is `[private]`.
    """
    found: dict[str, str | None] = {}
    marker = CURRENT.get()
    if marker is not None:
        owner, ident = marker[0], marker[1]
        if type(owner) is Call:
            found[TRACE_ID], found[SPAN_ID], ident = owner.trace_id, owner.span_id, owner._id
            owner = owner.binding
        found[PREDICTION_ID], found[MODEL] = ident, getattr(owner, "model", None)
    incoming = INCOMING.get()
    if not found.get(TRACE_ID) and incoming is not None:
        found[TRACE_ID] = incoming.trace_id
    ident = found.get(PREDICTION_ID)
    if ident:
        found[PREDICTION_ID] = veiled(ident)
    return {name: value for name, value in found.items() if value}


class LogFilter(logging.Filter):
    """Adds `trace_id`, `span_id`, `prediction_id` and `model` to every record; lets everything through.

    Outside of any call they are the empty text, so that a format of `%(trace_id)s` always works. Give it to a
    handler: a logger's filters do not see what its children log.
    """

    def __init__(self) -> None:
        super().__init__()
        USE.notice()

    def filter(self, record: logging.LogRecord) -> bool:
        found: Mapping[str, str] = {}
        try:
            found = running_ids()
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow("logs", problem)
        for name in _ECS:
            if not hasattr(record, name):
                setattr(record, name, found.get(name, ""))
        return True


def structlog_ids(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001
    """A structlog processor: adds the ids that exist, over nothing that the event has already."""
    try:
        USE.notice()
        for name, value in running_ids().items():
            event.setdefault(name, value)
    except Exception as problem:  # noqa: BLE001 - the guard's
        default_runtime().guard.swallow("logs", problem)
    return event


class JsonFormatter(logging.Formatter):
    """One line of strict JSON with fields of the Elastic Common Schema for every record.

    Takes the ids from the record (`LogFilter`) or else from the running call; `extra=` fields go below
    `labels`. What JSON cannot say is written as text (NaN, bytes, any object), lone surrogates are escaped, a
    record that cannot be formatted becomes a line that says so. Card numbers in messages, errors and extra
    fields are replaced by `[card]`; what else is private in them is the host's to leave out.
    """

    def __init__(self, service: str = "", environment: str = "") -> None:
        super().__init__()
        USE.notice()
        self._service, self._environment = service, environment

    def format(self, record: logging.LogRecord) -> str:
        try:
            return json.dumps(self._fields(record), allow_nan=False)
        except Exception as problem:  # noqa: BLE001 - the guard's; logging would print a traceback
            default_runtime().guard.swallow("logs", problem)
            lost = {"message": "<a log record that could not be formatted>", "log.logger": str(record.name)}
            return json.dumps({**_head(record), **lost})

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            **_head(record),
            "message": without_cards(_message(record)),
            "log.logger": record.name,
            "log.origin": {
                "file.name": record.filename,
                "file.line": record.lineno,
                "function": record.funcName,
            },
            "process.pid": record.process,
            "process.thread.name": record.threadName,
        }
        if self._service:
            fields["service.name"] = self._service
        if self._environment:
            fields["service.environment"] = self._environment
        found = running_ids()
        for name, field in _ECS.items():
            value = getattr(record, name, "") or found.get(name)
            if value:
                fields[field] = str(value)
        error = record.exc_info
        if error and error[0] is not None:
            fields["error.type"] = error[0].__qualname__
            fields["error.message"] = without_cards(_text(error[1]))
            fields["error.stack_trace"] = without_cards(self.formatException(error))
        labels = {name: _plain(value, 0) for name, value in vars(record).items() if name not in _OWN}
        if labels:
            fields["labels"] = labels
        return fields


def _head(record: logging.LogRecord) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "@timestamp": at.replace("+00:00", "Z"),
        "log.level": record.levelname.lower(),
        "ecs.version": ECS_VERSION,
    }


def _message(record: logging.LogRecord) -> str:
    """The message; where arguments do not fit its format, both as they are."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the host's mistake: the line is worth more than the format
        return f"{_text(record.msg)} {_text(record.args)}"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as problem:  # noqa: BLE001 - a user's object may refuse to be shown
        return f"<{type(value).__name__}, str raised {type(problem).__name__}>"


def _plain(value: Any, depth: int) -> Any:
    """A value that JSON can say; cycles end at a depth of six."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return without_cards(value)
    if isinstance(value, int):
        if abs(value) >= 1 << 63:
            return hex(value)
        return without_cards(str(value)) if card_number(value) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return without_cards(str(int(value))) if card_number(value) else value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {without_cards(_text(key)): _plain(item, depth + 1) for key, item in list(value.items())}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    return without_cards(_text(value))
