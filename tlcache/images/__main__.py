"""Decode one image alone, in a process that it may kill: `python -m tlcache.images AT_LEAST MAX_PIXELS < IMAGE`."""

import sys

from tlcache.images import BadImageError, decode

if __name__ == "__main__":
    try:
        decode(sys.stdin.buffer.read(), int(sys.argv[1]) or None, max_pixels=int(sys.argv[2]))
    except BadImageError as problem:
        sys.exit(str(problem))
