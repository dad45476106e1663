"""`init`: a project around a table."""
