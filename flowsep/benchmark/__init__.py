"""Latency: how long each stage takes, and how near that is to what the machine can do."""
