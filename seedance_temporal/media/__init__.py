"""Foreign media: fetch it over public HTTP, and probe it in a process of its own."""
