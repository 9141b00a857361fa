"""How the weights that klip ships were made."""
