"""Everything that touches the outside world: the provider, the bucket, the result hosts."""
