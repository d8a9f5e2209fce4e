"""The command line, installed as ``seedance``."""
