"""Fakes and contract kits for those who write adapters."""
