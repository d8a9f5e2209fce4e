"""The command line: ``python starter.py COMMAND`` is the same as ``seedance COMMAND``."""

from seedance_temporal.cli.main import main

if __name__ == "__main__":
    main()
