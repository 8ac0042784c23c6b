"""Argument checks, units, names, files, the machine and its devices. Imports nothing else of the package."""
