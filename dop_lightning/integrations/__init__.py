"""Adapters for other packages, one subpackage each. A missing package raises one line that says what to install."""
