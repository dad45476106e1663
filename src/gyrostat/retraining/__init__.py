"""Triggers, cooldown, budget."""
