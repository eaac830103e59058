"""OpenTelemetry traces of requests, jobs, SQL statements and calls to other services."""
