"""`python -m loadtests`, as `scripts/compare` calls it with the modules of scripts/ on the path."""

import importlib.util
import sys


def main() -> int:
    """Exit code of the command; 2 where the modules of scripts/ are not on the path."""
    if importlib.util.find_spec("local_redis") is None:
        print("error: run scripts/compare, which sets up what the load tests need", file=sys.stderr)
        return 2
    from loadtests import commands

    return commands.main()


if __name__ == "__main__":
    raise SystemExit(main())
