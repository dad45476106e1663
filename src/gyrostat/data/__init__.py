"""Sources, snapshots, splits, schema and checks."""
