"""Tells people, by webhook, command or mail, what the ledger says they must know."""
