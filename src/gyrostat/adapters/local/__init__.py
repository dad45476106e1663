"""Work in processes on this machine."""
