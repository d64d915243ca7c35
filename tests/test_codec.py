import pytest
import torch

from tests.tiny import PAPER
from vae.loss import kl_divergence, reconstruction_loss
from vae.model import CodecConfig, MelPatches, MelVAE, build_codec, load_codec


def test_patches_are_lossless():
    codec = MelPatches(4, mean=-4.4, std=2.2)
    mel = torch.randn(2, 64, 64) * 2 - 5
    latent = codec.encode(mel)
    assert latent.shape == (2, 16, 16, 16)
    torch.testing.assert_close(codec.decode(latent), mel)


def test_vae_latent_has_a_quarter_of_time_and_frequency_and_is_scaled():
    codec = MelVAE.build(PAPER.codec).eval()
    mel = torch.randn(1, 128, 64)
    with torch.no_grad():
        mean, logvar = codec.posterior(mel)
        assert mean.shape == logvar.shape == (1, 4, 32, 16)
        torch.testing.assert_close(codec.encode(mel), 0.7 * mean)
        decoded = codec.autoencoder.decode(mean).sample[:, 0]
        torch.testing.assert_close(codec.decode(0.7 * mean), decoded)


def test_posterior_is_sampled_only_on_request_and_by_seed():
    codec = MelVAE.build(PAPER.codec).eval()
    mel = torch.randn(2, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(codec.encode(mel), codec.encode(mel))
        one, again, other = codec.encode(mel, [1, 2]), codec.encode(mel, [1, 2]), codec.encode(mel, [3, 2])
    torch.testing.assert_close(one, again)
    assert not torch.allclose(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])


@pytest.mark.parametrize("config", [PAPER.codec, CodecConfig(kind="patches", mean=-3.0, std=2.0)])
def test_codecs_round_trip_through_their_folder(config, tmp_path):
    codec = build_codec(config).eval()
    codec.save_pretrained(tmp_path / "vae")
    loaded = load_codec(tmp_path / "vae").eval()
    mel = torch.randn(1, 32, 64)
    with torch.no_grad():
        assert torch.equal(codec.encode(mel), loaded.encode(mel))


def test_unknown_codec_lists_the_known():
    with pytest.raises(ValueError, match="choose vae or patches"):
        build_codec(CodecConfig(kind="wavelet"))


def test_kl_is_zero_for_a_standard_normal_and_grows_by_half_the_squared_mean():
    zeros = torch.zeros(1, 2, 3, 3)
    assert kl_divergence(zeros, zeros).item() == 0
    assert kl_divergence(zeros + 2, zeros).item() == pytest.approx(2.0)


def test_reconstruction_loss_sees_offsets_once_and_edges_too():
    mel = torch.zeros(1, 8, 8)
    assert reconstruction_loss(mel + 0.5, mel).item() == pytest.approx(0.5)
    checkered = mel.clone()
    checkered[:, ::2] = 1.0
    assert reconstruction_loss(checkered, mel).item() == pytest.approx(0.5 + 0.5 * 1.0)
