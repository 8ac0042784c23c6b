"""Adapters for other packages, one subpackage each. If a package is missing, the error names the extra to install."""
