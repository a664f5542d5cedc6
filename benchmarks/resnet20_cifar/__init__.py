"""How the embedded backbone was trained."""
