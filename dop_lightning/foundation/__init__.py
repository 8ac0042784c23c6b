"""Argument checks, units, names, files, the machine and its devices. Imports no other room of the package."""
