"""Grids of runs: axes and their points, what each point has left, and how points are run. Nothing heavy is imported."""
