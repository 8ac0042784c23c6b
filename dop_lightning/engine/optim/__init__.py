"""Optimizers of θ, g and h."""
