"""The worker process of one route: its workers, how they are served, and the check of what they need."""
