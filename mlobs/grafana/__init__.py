"""Objectives -> Grafana dashboards: written as files, or kept in step with a running Grafana."""
