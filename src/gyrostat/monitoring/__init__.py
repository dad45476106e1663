"""Watches what is served: throughput, latency, errors, drift, and quality with late labels."""
