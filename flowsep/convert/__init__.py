"""Other people's checkpoints -> model folders: safe reading, renaming, checking, streaming out."""
