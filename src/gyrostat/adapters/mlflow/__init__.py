"""MLflow sees what the ledger says: runs, models, versions, aliases. It is told afterwards and never asked."""
