"""Run `python -m tlcache.bundle`."""

import sys

from tlcache.bundle.command import main

if __name__ == "__main__":
    sys.exit(main())
