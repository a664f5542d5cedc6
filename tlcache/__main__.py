"""`python -m tlcache`."""

from tlcache.cli import main

main()
