"""Everything on one machine and without an account: for development, tests and the demo. Not in the wheel."""
