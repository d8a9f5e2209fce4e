"""The local Ark: a real HTTP server that behaves as the Ark video task API does, on one machine, for no money.

`python -m dev.ark --port 8089` starts it. It shares nothing with the client that is tested against it: its
models, limits and rules are its own.
"""
