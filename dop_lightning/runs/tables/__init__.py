"""Tables of one or several runs."""
