"""The ledger of attempts in the bucket: facts and decisions without I/O, and the objects that hold them."""
