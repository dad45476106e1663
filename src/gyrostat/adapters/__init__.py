"""One folder for each outside system."""
