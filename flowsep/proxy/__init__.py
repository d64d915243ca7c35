"""The proxy: a small text-audio encoder trained on the clips. Its scores are called `proxy`, never CLAPScore or FAD."""
