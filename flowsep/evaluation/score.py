"""Systems x items of a protocol -> one row each, in a folder that a killed run goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flowsep.audio import resample
from flowsep.errors import InputError, ModelError
from flowsep.evaluation.encoders import TextAudioEncoder
from flowsep.evaluation.protocols import ItemSet
from flowsep.evaluation.protocols.item import Item, Waves, to_tensor, unusable
from flowsep.evaluation.results import Frames, Results
from flowsep.evaluation.semantic import clap_score, clap_score_audio
from flowsep.evaluation.signal import improvement, level_db, sdr, si_sdr
from flowsep.evaluation.spectral import log_spectral_distance, log_spectral_distance_audioldm, mel_psnr
from flowsep.evaluation.systems import System

Figure = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # estimate, mixture, target (B, T), Hz -> (B,)
FIGURES: dict[str, tuple[str, Figure]] = {  # in the order of the columns
    "si_sdri": ("SI-SDRi dB", lambda e, x, r, rate: improvement(si_sdr, e, x, r)),
    "si_sdr": ("SI-SDR dB", lambda e, x, r, rate: si_sdr(e, r)),
    "sdri": ("SDRi dB", lambda e, x, r, rate: improvement(sdr, e, x, r)),
    "sdr": ("SDR dB", lambda e, x, r, rate: sdr(e, r)),
    "lsd": ("LSD", lambda e, x, r, rate: log_spectral_distance(e, r, rate)),
    "lsd_audioldm": ("LSD, audioldm_eval", lambda e, x, r, rate: log_spectral_distance_audioldm(e, r, rate)),
    "mel_psnr": ("mel PSNR dB", lambda e, x, r, rate: mel_psnr(e, r)),
}
TEXT_SCORE, AUDIO_SCORE = "text_score", "audio_score"  # of an encoder, cosines -1..1


def score_systems(
    items: ItemSet,
    systems: Sequence[System],
    results: Results,
    limit: int | None = None,
    encoder: TextAudioEncoder | None = None,
    quiet: bool = True,
) -> dict[str, str]:
    """Score what is not in `results` yet, one system after another; gives {item: why} of those that could not be.

    An item whose files cannot be read, and an answer with NaN, are passed over: the rest is scored, and a later run
    tries them again. What is wrong with a model, or with the form of somebody's estimates, is raised at once.
    """
    from tqdm import tqdm

    chosen = items.items[:limit]
    for system in systems:
        system.check(chosen)
    failed: dict[str, str] = {}
    for system in systems:
        todo = [item for item in chosen if not results.done(system.name, item.id)]
        for item in tqdm(todo, disable=quiet, unit="mixture", desc=system.name):
            try:
                waves = item.source.render(items.protocol.sample_rate)
            except InputError as error:
                failed[item.id] = str(error)
                continue
            try:
                row, frames = score_item(system, item, waves, items, encoder)
            except ModelError as error:
                failed[f"{item.id} by {system.name}"] = str(error)
                continue
            results.add(row, frames)
    return failed


def score_item(
    system: System, item: Item, waves: Waves, items: ItemSet, encoder: TextAudioEncoder | None = None
) -> tuple[dict[str, Any], Frames | None]:
    """One row: what the item is, and its figures, or why it has none; and what a Frechet distance is made of."""
    rate = items.protocol.sample_rate
    about = {"system": system.name, "id": item.id, "text": item.text, "target_class": item.target_class}
    about["other_class"] = item.other_class
    reason = unusable(waves)
    if reason is not None:
        return {**about, "snr_db": item.snr_db, "left_out": reason}, None
    answer = system.answer(item, waves, rate)
    batch = [audio[None] for audio in (answer.estimate, to_tensor(waves.mixture), to_tensor(waves.target))]
    snr = item.snr_db
    if snr is None:
        snr = round((level_db(batch[2]) - level_db(batch[1] - batch[2])).item(), 2)
    figures = {name: FIGURES[name][1](*batch, rate).item() for name in items.protocol.figures}
    frames = None
    if encoder is not None:
        figures[TEXT_SCORE] = clap_score(encoder, [item.text], batch[0], rate).mean
        figures[AUDIO_SCORE] = clap_score_audio(encoder, batch[0], batch[2], rate).mean
        if hasattr(encoder, "frames"):  # a FrameEncoder too
            heard = (resample(audio, rate, encoder.sample_rate)[0] for audio in (batch[0], batch[2]))
            frames = tuple(encoder.frames(audio).float() for audio in heard)
    cost = {"nfe": answer.nfe, "seconds": answer.seconds}
    return {**about, "snr_db": snr, **figures, **cost}, frames
