"""Log-mel and back: the mel definition, and the network that turns a mel into a waveform."""

from vocoder.mel import MelConfig, band_centres, log_mel, mel_filterbank

__all__ = ["MelConfig", "band_centres", "log_mel", "mel_filterbank"]
