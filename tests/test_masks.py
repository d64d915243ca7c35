"""Mask networks and MaskSeparator: shapes, ends, levels, queries, and what callers make of their waveforms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from flowsep.audio import downmix, resample
from flowsep.blocks import Sliding
from flowsep.channels import shared_blocks
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.longform import separate_audio
from flowsep.masks.examples import mean_embedding, segments, without_silence
from flowsep.masks.lassnet import LassNet
from flowsep.masks.query import BertQuery, ClapQuery
from flowsep.masks.resunet import AUDIOSEP, DCASE, ResUNet30, ResUNetConfig, complex_gain
from flowsep.masks.separator import MaskSeparator
from flowsep.masks.spectrum import audio_of, spectrum_of
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.remixing import remix
from flowsep.windows import level_mask
from tests.fakes import tone
from tests.tiny_masks import LASSNET, RESUNET, bert_query, clap_query, parameter_count, query_of, tiny_masker

NETWORKS = [ResUNet30(RESUNET).eval(), LassNet(LASSNET).eval()]


def test_published_sizes_have_the_published_parameters():
    unused = 820_800 + 2 * (384 + 384 + 384 + 256 + 128 + 64)  # the decoder's second shifts and norms
    with torch.device("meta"):
        assert parameter_count([ResUNet30(AUDIOSEP)]) == 26_447_941 - unused
        assert parameter_count([ResUNet30(DCASE)]) == 26_446_917 - unused
        assert parameter_count([LassNet()]) == 52_228_323


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("length", [1, 100, 129, 4000, 4001, 4063])
@torch.inference_mode()
def test_output_has_the_length_of_the_input_and_no_burst_at_its_end(network, length):
    mixture = 0.1 * torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    found = network(mixture, torch.rand(2, 12))
    assert found.shape == mixture.shape and torch.isfinite(found).all()
    assert found.abs().max() < 3 * mixture.abs().max()


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_items_of_a_batch_do_not_know_of_each_other(network):
    mixture, condition = 0.1 * torch.randn(3, 3000), torch.rand(3, 12)
    together = network(mixture, condition)
    alone = torch.cat([network(mixture[n : n + 1], condition[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_the_condition_and_nothing_else_decides(network):
    mixture = 0.1 * torch.randn(1, 3000).expand(2, -1)
    different = network(mixture, torch.stack([torch.zeros(12), torch.ones(12)]))
    assert (different[0] - different[1]).abs().max() > 1e-4
    assert network(torch.zeros(1, 3000), torch.rand(1, 12)).abs().max() == 0  # silence stays silence


def test_spectrum_and_its_inverse_are_exact():
    audio = torch.randn(2, 5003)
    torch.testing.assert_close(audio_of(spectrum_of(audio, 256, 64), 256, 64, 5003), audio, atol=1e-5, rtol=0)


def test_a_complex_gain_is_magnitude_and_rotation():
    gain = complex_gain(torch.tensor([0.0, 40.0, 0.0]), torch.tensor([0.5, 0.0, 0.0]), torch.tensor([0.0, -2.0, 0.0]))
    torch.testing.assert_close(gain, torch.tensor([0.5, -1j, 0.0]))  # no direction: nothing


def test_a_spectrum_that_cannot_be_halved_is_refused():
    with pytest.raises(ModelError, match="cannot be halved 6 times"):
        ResUNetConfig(n_fft=1000)


# --- queries


@torch.inference_mode()
def test_clap_conditions_have_length_one_and_ignore_padding():
    query = clap_query()
    vectors = query.encode(["a dog barking", "rain", "a dog barking"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    padded = query.tokenizer("rain", padding="max_length", max_length=40, return_tensors="pt")
    states = query.model(padded["input_ids"], padded["attention_mask"]).text_embeds
    torch.testing.assert_close(nn.functional.normalize(states, dim=-1), vectors[1:2], atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_bert_conditions_read_the_state_at_cls_without_sep():
    query = bert_query()
    assert query.tokens("a dog").tolist() == [[0, 4, 5]]  # [CLS] a dog
    state = query.model(torch.tensor([[0, 4, 5]])).last_hidden_state[:, 0]
    torch.testing.assert_close(query.encode(["a dog"]), query.projection(state).clamp(min=0))
    assert query.token_count("a dog") == 3 and clap_query().token_count("a dog") == 4


def test_classes_are_asked_for_by_name_and_others_are_refused_with_what_is_near():
    query = query_of("classes")
    assert query.encode(["dog", "Rain "]).tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    with pytest.raises(UsageError, match="did you mean Bell"):
        query.encode(["bells"])
    with pytest.raises(UsageError, match="asked by example"):
        query_of("clips").encode(["dog"])


def test_queries_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ModelError, match="4 numbers, the network takes 12"):
        MaskSeparator(ResUNet30(RESUNET), query_of("classes"))


# --- by example


def test_silence_is_dropped_from_examples_and_segments_are_side_by_side():
    rate = 1000
    loud, quiet = 0.5 * torch.ones(300), 0.01 * torch.ones(400)
    assert torch.equal(without_silence(torch.cat([quiet, loud, quiet]), rate), loud)
    assert torch.equal(without_silence(quiet, rate), quiet)
    assert segments(torch.arange(10.0), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert segments(torch.arange(3.0), 7).tolist() == [[0, 1, 2, 0, 1, 2, 0]]


def test_an_example_query_is_the_mean_over_clips_of_segments_and_works_as_a_description():
    rate = 1000

    def embed(audio):
        return audio.mean(1, keepdim=True).expand(-1, 12)

    clips = [(torch.full((1, 4000), 0.2), rate), (torch.full((2, 2000), 0.5), rate)]
    condition = mean_embedding(clips, embed, rate)
    torch.testing.assert_close(condition, torch.full((12,), (0.2 + 0.5) / 2))  # however long a clip is
    assert mean_embedding(clips, embed, rate, unit=True).norm().item() == pytest.approx(1)
    separator = tiny_masker("clips")
    separator.remember("my dog", condition)
    mixture = 0.1 * torch.randn(1, 4000)
    expected = separator.network(mixture, condition[None])
    assert torch.equal(separator.separate(mixture, ["my dog"]).target, expected)
    with pytest.raises(UsageError, match="12 numbers"):
        separator.remember("x", torch.zeros(3))
    with pytest.raises(InputError, match="no sound"):
        mean_embedding([(torch.zeros(1, 100), rate)], embed, rate)


# --- as a TextSeparator


@pytest.mark.parametrize(("kind", "network"), [("clap", "resunet"), ("bert", "lassnet"), ("t5", "resunet")])
def test_a_mask_separator_keeps_the_protocol(kind, network):
    separator = tiny_masker(kind, network)
    assert isinstance(separator, TextSeparator)
    mixture = 0.1 * torch.randn(2, 5000)
    found = separator.separate(mixture, ["a dog barking", "rain"])
    assert found.mask is None and found.nfe == 1 and found.settings["render"] == "mixture"
    torch.testing.assert_close(found.target + found.residual, mixture)
    alone = separator.separate(mixture[1:], ["rain"])
    torch.testing.assert_close(found.target[1:], alone.target, atol=1e-6, rtol=1e-4)
    assert set(found.seconds) == {"text", "network"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SampleOptions(render="vocoder"), "no vocoder"),
        (SampleOptions(steps=4, candidates=2), "leave --steps, --candidates out"),
        (SampleOptions(guidance=2.0, guidance_interval=(0.1, 0.9)), "--guidance-interval"),
        (SampleOptions(grid="shift:3"), "--grid"),
    ],
)
def test_options_of_a_sampler_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        tiny_masker().separate(torch.zeros(1, 100), ["rain"], options)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="T from 1 to 32000"):
        tiny_masker().separate(torch.zeros(1, 32001), ["rain"])


def test_half_precision_runs_and_stays_near():
    separator, mixture = tiny_masker(), 0.1 * torch.randn(1, 4000)
    exact = separator.separate(mixture, ["rain"]).target
    rounded = separator.to(torch.bfloat16).separate(mixture, ["rain"]).target
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.1 * exact.norm()


# --- recordings


def test_a_mono_recording_gets_the_waveform_itself_and_a_short_one_is_not_silenced():
    separator, audio = tiny_masker(), tone(0.6, 32000)
    (found,) = separate_audio(separator, audio, 32000, ["rain"])
    direct = separator.separate(audio, ["rain"]).target
    torch.testing.assert_close(found.target, direct)
    assert found.target.abs().max() > 0.01
    torch.testing.assert_close(found.target + found.residual, audio)


def test_windows_of_a_long_recording_are_joined_without_seams():
    """The mask is local in time, so that windows agree where they overlap, away from their ends."""
    audio = tone(2.5, 32000)
    (whole,) = separate_audio(tiny_masker(window=3.0), audio, 32000, ["rain"])
    (joined,) = separate_audio(tiny_masker(window=1.0), audio, 32000, ["rain"])
    assert joined.windows == 3 and whole.windows == 1
    assert (joined.target - whole.target).abs().max() < 0.02 * whole.target.abs().max()


def share_channels(audio, mono, target, rate):
    """Target (T,) separated from the down-mix mono (T,) of audio (C, T) -> the target in each channel (C, T)."""
    together = Sliding([torch.cat([audio, mono[None]])])
    found = shared_blocks(together, Sliding([target[None]]), audio.shape[-1], rate, channel=-1)
    return torch.cat([targets[0, :-1] for _, targets in found], dim=-1)


def test_channels_share_a_target_by_its_complex_gain():
    rate, seconds = 32000, 1.0
    time = torch.arange(int(rate * seconds)) / rate
    low, high = 0.4 * torch.sin(2 * torch.pi * 300 * time), 0.3 * torch.sin(2 * torch.pi * 3000 * time)
    audio = torch.stack([1.0 * low + 0.5 * high, 0.2 * low + 1.5 * high])  # each sound panned another way
    wanted = torch.stack([1.0 * low, 0.2 * low])
    found = share_channels(audio, downmix(audio), 0.6 * low, rate)
    inside = slice(2000, -2000)
    torch.testing.assert_close(found[:, inside], wanted[:, inside], atol=2e-3, rtol=0)
    torch.testing.assert_close(found.mean(0)[inside], 0.6 * low[inside], atol=2e-3, rtol=0)


def test_sharing_does_not_depend_on_the_blocks(monkeypatch):
    audio = torch.randn(2, 5000)
    whole = share_channels(audio, audio.mean(0), 0.3 * audio.mean(0), 2000)
    monkeypatch.setattr("flowsep.channels.BLOCK", 7)
    in_blocks = share_channels(audio, audio.mean(0), 0.3 * audio.mean(0), 2000)
    torch.testing.assert_close(in_blocks, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(whole, 0.3 * audio, atol=1e-4, rtol=0)


def test_a_stereo_recording_keeps_its_image_and_its_own_rate():
    separator = tiny_masker()
    audio = tone(0.6, 44100)
    stereo = torch.cat([audio, 0.25 * audio])
    (found,) = separate_audio(separator, stereo, 44100, ["rain"])
    assert found.target.shape == stereo.shape
    torch.testing.assert_close(found.target[1], 0.25 * found.target[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("length", [31999, 32000, 32319])
def test_level_masks_of_a_separator_at_another_rate_have_the_frames_that_are_counted(length):
    separator = tiny_masker(window=2.0)
    audio = tone(1.1, 32000)[:, :length]
    mask = level_mask(separator, audio[:1], 0.5 * audio)
    assert mask.shape == (1, length // 320 + 1, 64)
    torch.testing.assert_close(mask[0, 2:-2], torch.full_like(mask[0, 2:-2], 0.5), atol=0.02, rtol=0)
    mixed = remix(separator, audio, 32000, {"rain": -6.0})
    assert mixed.sum_error_db < -100 and not mixed.own_masks


def test_a_separator_of_another_rate_is_evaluated_at_the_recipes():
    from flowsep.evaluation.run import ask

    separator, mixture = tiny_masker(), tone(0.5, 16000)[0]
    targets, found = ask(separator, mixture, ["rain", "a dog"], SampleOptions())
    assert targets.shape == (2, len(mixture)) and found.target.shape == (2, 2 * len(mixture))
    back = resample(found.target, 32000, 16000, len(mixture))
    torch.testing.assert_close(targets, back)


def test_constructors_take_any_size():
    assert isinstance(clap_query(), ClapQuery) and isinstance(bert_query(), BertQuery)
    deeper = ResUNet30(replace(RESUNET, widths=(4, 4, 4, 4)))
    assert len(deeper.encoder) == len(deeper.decoder) == 4
