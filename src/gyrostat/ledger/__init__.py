"""The one truth: append-only entries in streams, hash-chained, and what lives are made of."""
