"""Keeps heads of the ledger's chain elsewhere: in a file, a git repository, behind a webhook."""
