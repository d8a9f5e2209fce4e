"""The audit of a job, built from evidence in the bucket and in Temporal."""
