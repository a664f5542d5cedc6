"""The other strategy: a network trained further on the images themselves, in torch."""
