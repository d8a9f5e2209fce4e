"""The command line: ``python starter.py COMMAND`` is the same as ``seedance COMMAND``."""

from seedance_temporal.cli.main import app

if __name__ == "__main__":
    app()
