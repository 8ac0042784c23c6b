"""What the verbs of `dop` do, a module each."""
