"""Mask separators: AudioSep, the DCASE 2024 Task 9 baseline, USS and LASS-Net, behind the same `TextSeparator`."""
