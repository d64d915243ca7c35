"""One training loop, and what each model trains on."""
