"""May this candidate replace the champion? `evidence` measures, `judge` decides."""
