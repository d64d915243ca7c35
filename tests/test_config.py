import pytest

from flowsep.config import load_config, save_config
from flowsep.errors import UsageError


def test_official_configuration_is_the_published_one():
    config = load_config("flowsep")
    assert (config.flow.start, config.flow.predict, config.flow.streams) == ("noise", "velocity", "target")
    assert config.flow.sigma_min == 1e-4 and config.sampling.steps == 10
    assert config.unet.channels == (128, 256, 384, 640) and config.text.hub == "google/flan-t5-large"
    assert config.data.snr_db == (-15.0, 15.0) and config.flow_loss.condition_dropout == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("unet.chanels=[1]", "chanels"),
        ("flow.start=middle", "unknown flow.start 'middle'"),
        ("flow_stage.steps=many", "many"),
        ("data.stand_ins=2", "data.stand_ins is a share or a probability, from 0 to 1"),
        ("data.augment=-0.1", "data.augment is a share"),
        ("data.three_sources=0.97", "data.target_alone, three_sources and target_absent are 1.09 together"),
        ("data.crop_seconds=-1", "data.crop_seconds must be above 0"),
        ("data.class_power=nan", "data.class_power must be 0 or more"),
        ("data.pool=0", "data.pool must be at least 1"),
        ("flow_stage.decay_share=3", "decay_share is a share, from 0 to 1"),
        ("flow_stage.learning_rate=-1e-3", "learning_rate must be 0 or more"),
        ("flow.mask_exponent=0", "flow.mask_exponent must be above 0"),
        ("vocoder_stage.optimiser=muon", "vocoder_stage.optimiser=muon: Muon is for the UNet"),
        ("no-equals-sign", "write key.sub=value"),
    ],
)
def test_misspelt_keys_and_values_are_usage_errors(override, message):
    with pytest.raises(UsageError, match=message):
        load_config("small", [override])


def test_unknown_names_list_the_known():
    with pytest.raises(UsageError, match="one of diffusionsep, flowsep, small"):
        load_config("smal")
    with pytest.raises(UsageError, match="no configuration file"):
        load_config("missing.yaml")


def test_overrides_win_and_a_saved_configuration_reads_back_the_same(tmp_path):
    config = load_config("small", ["flow_stage.steps=7", "data.snr_db=[-3,3]"])
    assert config.flow_stage.steps == 7 and config.data.snr_db == (-3.0, 3.0)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_an_unknown_mel_for_the_vocoder_is_refused():
    with pytest.raises(UsageError, match="choose from generated, blended"):
        load_config("small", ["sampling.vocoder_mel=masked"])
