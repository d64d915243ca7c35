"""The anti-aliased activation as matrix products equals the package's own."""

import subprocess
import sys

import pytest
import torch
from bigvgan.activations import Snake, SnakeBeta
from bigvgan.alias_free_activation.torch.act import Activation1d

from vocoder.activation import FRAME, ROWS, FramedActivation
from vocoder.measures import PLAIN, measures, using
from vocoder.model import Vocoder, VocoderConfig


def pair(kind: type = SnakeBeta, channels: int = 3, logscale: bool = True) -> tuple[Activation1d, FramedActivation]:
    torch.manual_seed(0)
    plain = Activation1d(kind(channels, alpha_logscale=logscale))
    for value in plain.act.parameters():
        value.data.add_(0.5 * torch.randn(channels).abs())
    return plain, FramedActivation(plain)


@pytest.mark.parametrize("length", [1, 2, 5, FRAME - 1, FRAME, FRAME + 1, FRAME + 2, FRAME + 3, 10 * FRAME + 7, 4001])
@pytest.mark.parametrize(("kind", "logscale"), [(SnakeBeta, True), (Snake, False)])
def test_framed_activation_equals_the_package_at_every_length(length, kind, logscale):
    plain, framed = pair(kind, logscale=logscale)
    sound = torch.randn(2, 3, length)
    with torch.inference_mode():
        torch.testing.assert_close(framed(sound), plain(sound), rtol=0, atol=1e-5)


def test_frames_and_channels_in_several_blocks_change_nothing():
    plain, framed = pair(channels=2)
    sound = torch.randn(1, 2, FRAME * (ROWS + 1) + 2)  # the last block holds the sound's end and little else
    with torch.inference_mode():
        torch.testing.assert_close(framed(sound), plain(sound), rtol=0, atol=1e-5)


def test_half_precision_is_nearer_to_full_precision_than_the_packages_path():
    plain, framed = pair()
    sound = torch.randn(2, 3, 1001).bfloat16()
    for part in (plain, framed):
        part.to(torch.bfloat16)
    with torch.inference_mode():
        exact = plain.float()(sound.float())
        plain.bfloat16()
        errors = [(path(sound).float() - exact).abs().mean() for path in (framed, plain)]
    assert framed(sound[:, :, :1]).dtype == torch.bfloat16
    assert errors[0] < errors[1] < 0.05


def test_training_takes_the_packages_path_and_keeps_its_gradients():
    plain, framed = pair()
    sound = torch.randn(1, 3, 100, requires_grad=True)
    assert torch.equal(framed(sound), plain(sound))
    framed(sound).sum().backward()
    assert sound.grad.abs().sum() > 0


def test_every_activation_of_the_vocoder_is_framed_and_keys_are_the_packages():
    config = VocoderConfig(upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),))
    vocoder = Vocoder(config)
    kinds = [type(module) for module in vocoder.modules() if isinstance(module, Activation1d)]
    assert kinds and set(kinds) == {FramedActivation}
    assert "resblocks.0.activations.0.act.alpha" in vocoder.generator.state_dict()
    assert "resblocks.0.activations.0.upsample.filter" in vocoder.generator.state_dict()


def test_the_packages_path_can_be_asked_for():
    plain, framed = pair()
    sound = torch.randn(1, 3, 100)
    with torch.inference_mode(), using(PLAIN):
        assert torch.equal(framed(sound), plain(sound))
    assert measures().framed


def test_loading_the_package_leaves_matplotlibs_backend_alone():
    code = "import matplotlib; matplotlib.use('svg'); import vocoder.activation; print(matplotlib.get_backend())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "svg"


def test_loading_the_package_leaves_its_unused_imports_out_and_whole_for_others():
    code = (
        "import sys, vocoder.package as ours; names = [n for n in ('librosa', 'matplotlib') if n in sys.modules];"
        "from bigvgan.utils import plot_spectrogram; import bigvgan, librosa.filters, matplotlib.pylab;"
        "print(names, bigvgan.BigVGAN is ours.BigVGAN, bigvgan.meldataset.librosa_mel_fn is librosa.filters.mel)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[] True True"
