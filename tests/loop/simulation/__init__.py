"""Seeded histories of the real loop in a world that loses, delays and repeats messages, kills and freezes."""
