"""The audit of a job: its document, and the evidence from the bucket and from Temporal."""
