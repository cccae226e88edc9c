"""python -m tests.mutants [NAME …]: see `tests.mutants`."""

import sys

from tests.mutants import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
