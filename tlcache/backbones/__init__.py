"""Where networks come from, and what runs them."""
