"""Reports of the outcomes and the costs of jobs."""
