"""The whole experiment: what its steps are, how long they take, and taking those that are not recorded."""
