"""Log-mel to latent and back: FlowSep's mel VAE, and lossless patches behind the same seam."""
