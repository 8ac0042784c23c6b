"""Sweeps: axes, points, results of points, and ways to run them. Imports no heavy packages."""
