"""Every metric, label, span, attribute and rule name of mlobs, once.

Metrics have base units in their names (seconds, bytes, ratio) and labels from a closed set;
user ids and request ids are never labels. The page that explains each one is docs/metrics.md.
"""

from __future__ import annotations

from typing import Final

# -- labels -----------------------------------------------------------------------------------
SERVICE: Final = "service"
MODEL: Final = "model"
MODEL_VERSION: Final = "model_version"
STAGE: Final = "stage"
OUTCOME: Final = "outcome"
DECISION: Final = "decision"
RESULT: Final = "result"
FEATURE: Final = "feature"
SEGMENT: Final = "segment"
STATISTIC: Final = "statistic"
REFERENCE: Final = "reference"
CHECK: Final = "check"
SEVERITY: Final = "severity"
METRIC: Final = "metric"
SLO: Final = "slo"
WINDOW: Final = "window"
PIPELINE: Final = "pipeline"
REASON: Final = "reason"
CHANNEL: Final = "channel"

LABELS: Final = frozenset(
    {SERVICE, MODEL, MODEL_VERSION, STAGE, OUTCOME, DECISION, RESULT, FEATURE, SEGMENT, STATISTIC,
     REFERENCE, CHECK, SEVERITY, METRIC, SLO, WINDOW, PIPELINE, REASON, CHANNEL}
)  # fmt: skip

OTHER: Final = "__other__"
"""Label value of everything beyond a metric's cap."""

# -- label values -----------------------------------------------------------------------------
OK: Final = "ok"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"
OUTCOMES: Final = (OK, ERROR, CANCELLED)

PAGE: Final = "page"
TICKET: Final = "ticket"
SEVERITIES: Final = (PAGE, TICKET)

FEATURE_READ: Final = "feature_read"
PREPROCESS: Final = "preprocess"
INFERENCE: Final = "inference"
POSTPROCESS: Final = "postprocess"

PREDICTION: Final = "prediction"
"""What drift calls the model's output among the features."""
FEATURE_PREDICTION: Final = "features.prediction"
"""... and a feature that has that name, as that of a model which another one feeds."""

ANY_CHECK: Final = "any"
"""`check` of a row that fails one check or more: rows are counted once, however many checks fail."""

# -- metrics of the serving process -------------------------------------------------------------
REQUEST_DURATION: Final = "mlobs_request_duration_seconds"
REQUEST_DURATION_NATIVE: Final = "mlobs_request_duration_native_seconds"
STAGE_DURATION: Final = "mlobs_stage_duration_seconds"
IN_FLIGHT: Final = "mlobs_requests_in_flight"
PREDICTIONS: Final = "mlobs_predictions_total"
BATCH_SIZE: Final = "mlobs_batch_size"
QUEUE_LENGTH: Final = "mlobs_queue_length"
QUEUE_DURATION: Final = "mlobs_queue_duration_seconds"
CACHE_REQUESTS: Final = "mlobs_cache_requests_total"
FEATURE_AGE: Final = "mlobs_feature_age_seconds"
MODEL_INFO: Final = "mlobs_model_info"
CHECKPOINT_TIMESTAMP: Final = "mlobs_checkpoint_timestamp_seconds"
GOOD_PREDICTIONS: Final = "mlobs_good_predictions_total"
OVERHEAD: Final = "mlobs_overhead_seconds_total"
LABEL_OVERFLOW: Final = "mlobs_label_overflow_total"
INTERNAL_ERRORS: Final = "mlobs_internal_errors_total"
PROCESS_START: Final = "mlobs_process_start_time_seconds"
"""Start of the serving process: a counter's reset is told by it, per target."""

# -- metrics of whole requests, by OpenTelemetry's names (dots are underscores, the unit ends them) ----
HTTP_REQUEST_DURATION: Final = "http_server_request_duration_seconds"
RPC_CALL_DURATION: Final = "rpc_server_call_duration_seconds"
HTTP_METHOD: Final = "http_request_method"
HTTP_STATUS: Final = "http_response_status_code"
HTTP_ROUTE: Final = "http_route"
RPC_METHOD: Final = "rpc_method"
RPC_STATUS: Final = "rpc_response_status_code"

# -- metrics of generative models, by OpenTelemetry's names -------------------------------------------------
GENAI_DURATION: Final = "gen_ai_server_request_duration_seconds"
GENAI_TTFT: Final = "gen_ai_server_time_to_first_token_seconds"
GENAI_TPOT: Final = "gen_ai_server_time_per_output_token_seconds"
GENAI_TOKENS: Final = "gen_ai_client_token_usage"
GENAI_SPEED: Final = "mlobs_output_tokens_per_second"
"""Output tokens of a response over its duration: the conventions have no name for it."""
GENAI_OPERATION: Final = "gen_ai_operation_name"
GENAI_PROVIDER: Final = "gen_ai_provider_name"
GENAI_MODEL: Final = "gen_ai_request_model"
GENAI_COUNTED: Final = "gen_ai_token_type"
GENAI_ERROR: Final = "error_type"

# -- metrics of jobs -----------------------------------------------------------------------
JOB: Final = "job_name"
"""Not `job`: a scrape would overwrite that one."""
JOB_DURATION: Final = "mlobs_job_duration_seconds"
JOB_RUNS: Final = "mlobs_job_runs_total"
JOB_ROWS: Final = "mlobs_job_rows_total"
JOB_LAST_RUN: Final = "mlobs_job_last_run_timestamp_seconds"
JOB_LAST_SUCCESS: Final = "mlobs_job_last_success_timestamp_seconds"
JOB_DATA_TIMESTAMP: Final = "mlobs_job_data_timestamp_seconds"

# -- metrics of the drift service ----------------------------------------------------------------
DRIFT_SCORE: Final = "mlobs_drift_score"
DRIFT_BREACH: Final = "mlobs_drift_breach"
DRIFT_BREACH_SINCE: Final = "mlobs_drift_breach_since_timestamp_seconds"
DRIFT_SLICES: Final = "mlobs_drift_slices_total"
DATA_QUALITY_ROWS: Final = "mlobs_data_quality_rows_total"
MODEL_QUALITY: Final = "mlobs_model_quality"
MODEL_QUALITY_DAY: Final = "mlobs_model_quality_day_timestamp_seconds"
LABEL_MATURITY: Final = "mlobs_label_maturity_ratio"

# -- metrics of `mlobs serve` -----------------------------------------------------------------------
SERVE_LAST_TICK: Final = "mlobs_serve_last_tick_timestamp_seconds"
COMPACTION_LAST_SUCCESS: Final = "mlobs_compaction_last_success_timestamp_seconds"
COMPACTION_HELD: Final = "mlobs_compaction_held_segments"

# -- metrics of the SLO engine -------------------------------------------------------------------
BUDGET_REMAINING: Final = "mlobs_slo_error_budget_remaining_ratio"
BURN_RATE: Final = "mlobs_slo_burn_rate"

# -- metrics of a canary: the verdict that holds is 1; odds against "no worse", and what a rollback takes ----
CANARY: Final = "canary"
CANARY_VERDICT: Final = "mlobs_canary_verdict"
CANARY_E_VALUE: Final = "mlobs_canary_e_value"
CANARY_NEEDED: Final = "mlobs_canary_needed"

# -- ledger of every pipeline: offered = delivered + dropped{reason} + queued ---------------------
PIPELINE_OFFERED: Final = "mlobs_pipeline_offered_total"
PIPELINE_DELIVERED: Final = "mlobs_pipeline_delivered_total"
PIPELINE_DROPPED: Final = "mlobs_pipeline_dropped_total"
PIPELINE_RETRIED: Final = "mlobs_pipeline_retried_total"
PIPELINE_SAMPLED_OUT: Final = "mlobs_pipeline_sampled_out_total"
PIPELINE_QUEUED: Final = "mlobs_pipeline_queued"
PIPELINE_OLDEST_AGE: Final = "mlobs_pipeline_oldest_age_seconds"
PIPELINE_LAST_SUCCESS: Final = "mlobs_pipeline_last_success_timestamp_seconds"
PIPELINE_EVENT_TIME: Final = "mlobs_pipeline_event_time_seconds"

# -- paging: attempts and what became of them, by channel -------------------------------------------
NOTIFY_SENT: Final = "mlobs_notify_sent_total"
NOTIFY_FAILED: Final = "mlobs_notify_failed_total"
NOTIFY_LATENCY: Final = "mlobs_notify_latency_seconds"
"""From the alert's arrival to the delivery of its first page."""
NOTIFY_OLDEST: Final = "mlobs_notify_oldest_waiting_seconds"
NOTIFY_SUPPRESSED: Final = "mlobs_notify_suppressed_total"
NOTIFY_PASSED_ON: Final = "mlobs_notify_passed_on_total"
"""Firing messages that a channel did not take, or not in time: others were told instead."""
NOTIFY_UNREACHED: Final = "mlobs_notify_unreached_pages"
"""Open pages that no channel has taken yet."""

# -- span attributes: OpenTelemetry has none for classic ML, these follow its style ----------------
ATTR_MODEL_NAME: Final = "ml.model.name"
ATTR_MODEL_VERSION: Final = "ml.model.version"
ATTR_MODEL_VARIANT: Final = "ml.model.variant"
ATTR_PREDICTION_ID: Final = "ml.prediction.id"
ATTR_STAGE: Final = "ml.stage"
ATTR_SEGMENT: Final = "ml.segment"
ATTR_FEATURE_NAME: Final = "ml.feature.name"
ATTR_GENAI_OPERATION: Final = "gen_ai.operation.name"
ATTR_GENAI_PROVIDER: Final = "gen_ai.provider.name"
ATTR_GENAI_MODEL: Final = "gen_ai.request.model"
ATTR_GENAI_INPUT: Final = "gen_ai.usage.input_tokens"
ATTR_GENAI_OUTPUT: Final = "gen_ai.usage.output_tokens"

# -- recorded rules: Sloth's spelling, so that dashboards made for it read ours --------------------
RULE_SLI_ERROR: Final = "slo:sli_error:ratio_rate{window}"
RULE_OBJECTIVE: Final = "slo:objective:ratio"
RULE_ERROR_BUDGET: Final = "slo:error_budget:ratio"
RULE_PERIOD_DAYS: Final = "slo:time_period:days"
RULE_CURRENT_BURN: Final = "slo:current_burn_rate:ratio"
RULE_PERIOD_BUDGET_REMAINING: Final = "slo:period_error_budget_remaining:ratio"

# -- environment ------------------------------------------------------------------------------------
ENV_HASH_KEY: Final = "MLOBS_HASH_KEY"
ENV_KAFKA_CONFIG: Final = "MLOBS_KAFKA_CONFIG"
ENV_GRAFANA_TOKEN: Final = "MLOBS_GRAFANA_TOKEN"  # noqa: S105 - the name of the variable

DEFAULT_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1,
    0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper edges in seconds of a latency histogram before the SLO thresholds are added."""
