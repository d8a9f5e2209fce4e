"""The local Ark: a real HTTP server that behaves as the Ark video task API does, on one machine, for no money.

`python -m dev.ark --port 8089` starts it. It shares nothing with the client that is tested against it: its
models, limits and rules are its own.

Its keys see what the provider's keys see: the tasks of their project, and with permission Custom those of the models
that they name. All keys start in one project with permission All; the admin API changes that while the server runs.
"""
