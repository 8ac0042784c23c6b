"""What the paper claims: its theory and its figures."""
