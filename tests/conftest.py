"""Tests know no settings of the shell, which could spend real money, and set no deadline for generated cases."""

import os

from hypothesis import settings

for _name in list(os.environ):
    if _name.startswith(("ARK_", "SEEDANCE_", "TEMPORAL_", "GOOGLE_", "STORAGE_EMULATOR_")):
        del os.environ[_name]

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
