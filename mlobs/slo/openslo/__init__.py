"""OpenSLO v1, both ways: SLO, SLI, Service, DataSource, AlertPolicy, AlertCondition, AlertNotificationTarget.

What OpenSLO has no field for (a model, the exact kind of an indicator, the ticket cap) stands in
annotations that begin with `mlobs/`, so that a file goes out and comes back equal; other tools see
Prometheus queries.
"""

from mlobs.slo.openslo.bundle import Bundle, bundle_of, settings_of
from mlobs.slo.openslo.reading import is_openslo, read_openslo
from mlobs.slo.openslo.writing import openslo_documents, write_openslo

__all__ = [
    "Bundle", "bundle_of", "is_openslo", "openslo_documents", "read_openslo", "settings_of", "write_openslo",
]  # fmt: skip
