"""The bucket, and the signing of its URLs."""
