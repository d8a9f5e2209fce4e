"""The workflows: one per video, and one that lists the tasks of the account."""
