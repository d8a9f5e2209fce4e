"""The story of one video, and its time-outs."""
