"""`python -m tlcache`."""

from tlcache.cli import main

if __name__ == "__main__":
    main()
