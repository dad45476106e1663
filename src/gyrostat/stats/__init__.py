"""Intervals, sequential tests and distances: numbers in, numbers out."""
