"""How long each stage takes and how near that is to what the machine can do; precision; quality against steps."""
