"""How a candidate takes over from the champion, step by step, and what stops it."""
