"""mlobs takes a model-serving process from a decorator to a page.

    import mlobs

    mlobs.init(service="fraud-api", feature_log="./featurelog")

    @mlobs.observe(model="fraud", version="2026-11-01")
    def score(transaction: dict) -> float:
        with mlobs.stage("inference"):
            return 0.1

    mlobs.start_metrics_server(port=8000)

Importing it starts nothing: no thread, no file, no socket.
"""

from typing import TYPE_CHECKING, Any

from mlobs.sdk.api import close, flush, init, log_label, observe
from mlobs.sdk.call import USE, Call
from mlobs.sdk.genai import Generation, generates, generation, token_usage
from mlobs.sdk.instruments import batch, cache, feature_age, queue
from mlobs.sdk.jobs import JobRun, current_job, job
from mlobs.sdk.logs import JsonFormatter, LogFilter, structlog_ids
from mlobs.sdk.serve import MetricsServer, metrics_app, metrics_wsgi_app, start_metrics_server

if TYPE_CHECKING:
    from mlobs.sdk.call import current, stage

__version__ = "0.1.0"

__all__ = [
    "init",
    "observe",
    "stage",
    "current",
    "log_label",
    "queue",
    "batch",
    "cache",
    "feature_age",
    "generates",
    "generation",
    "token_usage",
    "flush",
    "close",
    "metrics_app",
    "metrics_wsgi_app",
    "start_metrics_server",
    "job",
    "current_job",
    "LogFilter",
    "JsonFormatter",
    "structlog_ids",
    "Call",
    "Generation",
    "JobRun",
    "MetricsServer",
]


def __getattr__(name: str) -> Any:
    """`current` and `stage` at their first use: until somebody wants them, calls need not carry a context."""
    if name in ("current", "stage"):
        from mlobs.sdk import call

        USE.notice()
        globals()[name] = found = getattr(call, name)
        return found
    raise AttributeError(f"module 'mlobs' has no attribute {name!r}")
