"""Metrics that need a model. Each says which: a `Score` carries the name of its encoder, and prints it.

The functions of embeddings and logits are pure and batched. Which encoder was used decides the scale of every figure
here; figures from different encoders are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flowsep.audio import resample
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.encoders import FrameEncoder, Tagger, TextAudioEncoder

KL_EPS = 1e-6
LEGACY_LOADED, LEGACY_ASSUMED = 16000, 32000  # Hz


@dataclass(frozen=True)
class Score:
    """A figure that depends on an encoder."""

    metric: str
    encoder: str
    values: Tensor  # (B,), or () for a figure of a whole set

    @property
    def mean(self) -> float:
        """Over the items."""
        return float(self.values.mean())

    def __str__(self) -> str:
        return f"{self.metric} [{self.encoder}]: {self.mean:.4f}"


def clap_score(
    encoder: TextAudioEncoder, texts: Sequence[str], audio: Tensor, sample_rate: int, legacy_rate: bool = False
) -> Score:
    """Cosine (B,), -1..1, between each text and the sound audio (B, T) at `sample_rate` Hz; tables print it x100.

    `legacy_rate` repeats an error of the published script, which loads at 16 kHz and tells the encoder 32, so that CLAP
    hears everything at double speed: for reproducing figures that were made so.
    """
    heard = encoder.audio(for_encoder(audio, sample_rate, encoder.sample_rate, legacy_rate))
    name = encoder.score_name + (" (legacy rate)" if legacy_rate else "")
    return Score(name, encoder.name, nn.functional.cosine_similarity(encoder.text(texts), heard))


def clap_score_audio(
    encoder: TextAudioEncoder, estimate: Tensor, reference: Tensor, sample_rate: int, legacy_rate: bool = False
) -> Score:
    """CLAPScore_A: cosine (B,) between estimate and reference (B, T) at `sample_rate` Hz. Otherwise as `clap_score`."""
    rate = encoder.sample_rate
    found, wanted = (encoder.audio(for_encoder(x, sample_rate, rate, legacy_rate)) for x in (estimate, reference))
    name = f"{encoder.score_name}_A" + (" (legacy rate)" if legacy_rate else "")
    return Score(name, encoder.name, nn.functional.cosine_similarity(found, wanted))


def for_encoder(audio: Tensor, sample_rate: int, encoder_rate: int, legacy_rate: bool) -> Tensor:
    """Audio (B, T) at the encoder's rate, or as the published script hands it over."""
    if not legacy_rate:
        return resample(audio, sample_rate, encoder_rate)
    return resample(resample(audio, sample_rate, LEGACY_LOADED), LEGACY_ASSUMED, encoder_rate)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians that fit two sets of embeddings (N, D) and (N', D).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), unbiased covariances, in float64. With fewer embeddings than
    dimensions the covariances are singular and the value is biased upwards; compare sets of one size only.
    """
    a, b = a.double(), b.double()
    if min(len(a), len(b)) < 2:
        raise UsageError("a Frechet distance needs at least two embeddings on either side")
    covariance_a, covariance_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    # tr (S_a S_b)^(1/2) is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric.
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * shared
    return float(distance)


def frechet_score(
    encoder: FrameEncoder, estimates: Sequence[Tensor], references: Sequence[Tensor], sample_rate: int
) -> Score:
    """Frechet distance between all embeddings of the estimates and all of the references, waveforms (T,).

    With VGGish as the encoder this is FAD, with Cnn14's embeddings FD. The order does not matter.
    """
    pooled = []
    for sounds in (estimates, references):
        if not sounds:
            raise InputError("a Frechet distance needs sounds on either side")
        at_rate = [resample(one[None], sample_rate, encoder.sample_rate)[0] for one in sounds]
        pooled.append(torch.cat([encoder.frames(one) for one in at_rate]))
    return Score("Frechet distance", encoder.name, torch.tensor(frechet_distance(*pooled)))


def kl_divergence(estimate: Tensor, reference: Tensor, activation: str = "softmax") -> Tensor:
    """KL(reference || estimate) of a tagger's logits (B, classes), per item (B,).

    sum_c p_r (ln p_r - ln(p_e + 1e-6)), p by softmax (AudioGen's form) or by sigmoid (each class on its own); the
    published figures are means over the items.
    """
    if activation not in ("softmax", "sigmoid"):
        raise UsageError(f"unknown activation {activation!r}; choose softmax or sigmoid")
    as_probabilities: Callable[[Tensor], Tensor] = (
        torch.sigmoid if activation == "sigmoid" else lambda x: x.softmax(dim=-1)
    )
    found, wanted = as_probabilities(estimate.double()), as_probabilities(reference.double())
    return (torch.xlogy(wanted, wanted) - wanted * torch.log(found + KL_EPS)).sum(-1)


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Inception score (Salimans et al., 2016) of a tagger's logits (N, classes): mean and deviation over `splits`.

    exp( mean over sounds of KL(p(y|x) || p(y)) ), p(y|x) the softmax and p(y) its mean over a split: 1 where all sounds
    are tagged alike, the number of classes where each is tagged surely and all classes occur alike. It needs no
    reference and does not know what was asked for. Order and splits are audioldm_eval's, ten of sounds shuffled with
    NumPy's old generator. UsageError for fewer sounds than splits.
    """
    if not 1 <= splits <= len(logits):
        raise UsageError(f"{len(logits)} sounds cannot be split into {splits}; give fewer splits or more sounds")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.cpu().double()[order].log_softmax(-1)
    scores = []
    for number in range(splits):
        part = log_p[number * len(log_p) // splits : (number + 1) * len(log_p) // splits]
        marginal = part.exp().mean(0, keepdim=True).log()
        scores.append((part.exp() * (part - marginal)).sum(-1).mean().exp())
    stacked = torch.stack(scores)
    return float(stacked.mean()), float(stacked.std(correction=0))


def inception(tagger: Tagger, sounds: Sequence[Tensor], sample_rate: int, splits: int = 10) -> Score:
    """`inception_score` of waveforms (T,) at `sample_rate` Hz by any tagger."""
    heard = [tagger.logits(resample(one[None], sample_rate, tagger.sample_rate)) for one in sounds]
    if not heard:
        raise InputError("an inception score needs sounds")
    return Score("inception score", tagger.name, torch.tensor(inception_score(torch.cat(heard), splits)[0]))


def retrieval_recall(texts: Tensor, sounds: Tensor, owners: Sequence[int], k: int) -> float:
    """R@k, text to audio: the share of captions (Q, D) whose own clip is among the k nearest of sounds (N, D).

    `owners[q]` is the row of the clip that caption q belongs to. Nearness is the cosine; a clip that ties with the
    caption's own does not go before it.
    """
    if k < 1:
        raise UsageError(f"R@k needs k of at least 1, not {k}")
    return float((own_ranks(texts, sounds, owners) < k).double().mean())


def own_ranks(texts: Tensor, sounds: Tensor, owners: Sequence[int]) -> Tensor:
    """How many clips are nearer to each caption than its own, (Q,): 0 where its own is the nearest. As above."""
    if len(owners) != len(texts):
        raise UsageError(f"{len(texts)} captions need as many owners, not {len(owners)}")
    normal = nn.functional.normalize
    similarity = normal(texts.double(), dim=-1) @ normal(sounds.double(), dim=-1).T  # (Q, N)
    own = similarity.gather(1, torch.as_tensor(owners, device=similarity.device)[:, None])
    return (similarity > own).sum(1)


StateEncoder = Callable[[Tensor], Tensor]  # waveform (T,) -> states (L, D)


def state_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine () between the means of two sequences of states (L, D), (L', D)."""
    return nn.functional.cosine_similarity(a.mean(0), b.mean(0), dim=0)


def afsim(encoder: StateEncoder, name: str, estimates: Sequence[Tensor], references: Sequence[Tensor]) -> Score:
    """AFSim of HSM-TSS with any encoder: `state_similarity` of each estimate and reference, waveforms (T,).

    The published one takes the last but one layer of Audio Flamingo under its captioning prompt, 2048-d.
    """
    pairs = zip(estimates, references, strict=True)
    return Score("AFSim", name, torch.stack([state_similarity(encoder(e), encoder(r)) for e, r in pairs]))
