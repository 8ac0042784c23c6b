"""Matrices stored in files, read and written in strips of rows."""
