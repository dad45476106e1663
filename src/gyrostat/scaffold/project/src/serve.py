"""The model server alone, from what is on disk: python -m src.serve (the same as `gyrostat serve`)."""

if __name__ == "__main__":
    import gyrostat

    gyrostat.Project().serve()
