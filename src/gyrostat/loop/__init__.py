"""Observe, decide, act: the reconciler, and the one place that picks adapters."""
