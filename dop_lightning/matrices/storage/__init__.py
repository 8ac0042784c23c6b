"""Matrices that stay in their files: read and written in strips of rows."""
