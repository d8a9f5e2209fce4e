"""Tests know no settings but their own: what the surrounding shell says could spend real money."""

import os

for _name in list(os.environ):
    if _name.startswith(("ARK_", "SEEDANCE_", "TEMPORAL_", "GOOGLE_", "STORAGE_EMULATOR_")):
        del os.environ[_name]
