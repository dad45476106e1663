"""Model versions: the bundles themselves, and which number, status and past each has according to the ledger."""
