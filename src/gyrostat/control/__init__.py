"""The control room: one live page behind a strict door."""
