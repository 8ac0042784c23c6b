"""Robust recovery without training data, by double over-parameterization."""
