"""Reports of what was made and what it cost."""
