"""Samples and verdicts -> SLI -> budget -> burn -> alerts; the same objectives as rules for Prometheus."""
