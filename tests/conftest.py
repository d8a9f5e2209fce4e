"""Tests know no settings but their own, because those of the shell could spend real money; and wait on busy machines."""

import os

from hypothesis import settings

for _name in list(os.environ):
    if _name.startswith(("ARK_", "SEEDANCE_", "TEMPORAL_", "GOOGLE_", "STORAGE_EMULATOR_")):
        del os.environ[_name]

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
