"""The rooms behind the command line: what its commands share, and the larger ones themselves."""
