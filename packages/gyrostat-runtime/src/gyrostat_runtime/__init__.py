"""What runs where predictions are made: bundles, sessions, native hosts and the prediction log."""
