"""Metrics, mixture recipes and the run over them."""
