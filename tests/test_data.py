from dataclasses import replace

import numpy as np
import pytest

from flowsep.data.dataset import DataConfig, MixtureDataset, collate
from flowsep.data.manifest import PHRASINGS, read_manifest, read_phrasings, select
from flowsep.data.mixing import change_speed, energy, equalise, limit_together, mix_at_snr, place, reverberate
from flowsep.errors import InputError
from tests.tiny import write_clips

RNG = np.random.default_rng(0)


def noise(count=4000):
    return RNG.standard_normal(count).astype(np.float32) * 0.1


@pytest.mark.parametrize("snr", [-15.0, 0.0, 7.5])
def test_mixture_has_the_asked_for_ratio_and_is_the_sum_of_its_parts(snr):
    target, other = noise(), noise()
    mixture, scaled = mix_at_snr(target, other, snr)
    assert 10 * np.log10(energy(target) / energy(scaled)) == pytest.approx(snr, abs=1e-3)
    np.testing.assert_array_equal(mixture, target + scaled)


def test_silence_is_mixed_as_it_is():
    target = noise()
    mixture, scaled = mix_at_snr(target, np.zeros_like(target), 3.0)
    np.testing.assert_array_equal(mixture, target)
    assert not scaled.any()


def test_parts_are_limited_by_one_factor():
    loud, quiet = limit_together(np.array([0.0, -1.9], np.float32), np.array([0.4, 0.2], np.float32))
    np.testing.assert_allclose(loud, [0.0, -0.95])
    np.testing.assert_allclose(quiet, [0.2, 0.1])


def test_clips_are_cut_at_both_ends_of_the_canvas():
    clip = np.arange(1, 6, dtype=np.float32)
    np.testing.assert_array_equal(place(clip, 2, 4), [0, 0, 1, 2])
    np.testing.assert_array_equal(place(clip, -3, 4), [4, 5, 0, 0])


def test_speed_moves_length_and_pitch():
    tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000).astype(np.float32)
    fast = change_speed(tone, 1.25)
    assert len(fast) == 12800
    assert np.argmax(np.abs(np.fft.rfft(fast))) * 16000 / len(fast) == pytest.approx(250, abs=2)


def test_flat_equaliser_changes_nothing_and_a_boost_is_in_db():
    clip = noise()
    np.testing.assert_allclose(equalise(clip, np.zeros(5, np.float32)), clip, atol=1e-6)
    assert 10 * np.log10(energy(equalise(clip, np.full(5, 6.0, np.float32))) / energy(clip)) == pytest.approx(
        6, abs=0.1
    )


def test_reverberation_keeps_length_and_energy():
    clip, impulse = noise(), np.array([1.0, 0.0, 0.5], np.float32)
    wet = reverberate(clip, impulse)
    assert len(wet) == len(clip) and energy(wet) == pytest.approx(energy(clip), rel=1e-3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return read_manifest(write_clips(tmp_path_factory.mktemp("clips")))


def test_a_folder_of_folders_is_a_manifest(clips):
    assert len(clips) == 12
    assert {clip.label for clip in clips} == {"low_hum", "high_whistle", "hiss", "clicks"}
    assert next(clip for clip in clips if clip.label == "low_hum").captions == ("low hum",)


def test_manifest_reads_captions_family_split_and_licence(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,class,split,family,caption_candidates,nc\na.wav,dog_bark,valid,dog,a dog;woof,1\n")
    (clip,) = read_manifest(manifest)
    assert (clip.family, clip.split, clip.captions, clip.non_commercial) == ("dog", "valid", ("a dog", "woof"), True)
    assert select([clip], "valid", commercial_only=True) == [] and select([clip], "valid", False) == [clip]


@pytest.mark.parametrize(
    ("text", "message"), [("", "lists no clips"), ("path,split\na.wav,train\n", "lacks the column class")]
)
def test_unusable_manifests_say_what_is_missing(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path)


def test_missing_manifest_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="give a CSV"):
        read_manifest(tmp_path / "nothing.csv")


def test_items_add_up_and_depend_on_seed_and_number_only(clips):
    config = DataConfig(
        crop_seconds=0.5, augment=0.5, three_sources=0.3, target_alone=0.2, target_absent=0.2, synthetic=0.3
    )
    first, second = (MixtureDataset(clips, config, 16000, seed=3) for _ in range(2))
    other = MixtureDataset(clips, config, 16000, seed=4)
    for index in range(40):
        item, again = first[index], second[index]
        np.testing.assert_allclose(item["mixture"], item["target"] + item["residual"], atol=1e-6)
        assert item["mixture"].shape == (8000,) and item["mixture"].abs().max() <= 0.95 + 1e-6
        assert item["text"] == again["text"] and (item["mixture"] == again["mixture"]).all()
    assert any((first[i]["mixture"] != other[i]["mixture"]).any() for i in range(5))


def test_shares_of_alone_and_absent_items_are_drawn(clips):
    config = DataConfig(crop_seconds=0.25, target_alone=0.25, target_absent=0.25)
    dataset = MixtureDataset(clips, config, 16000, seed=0)
    items = [dataset[i] for i in range(200)]
    alone = sum(not item["residual"].any() for item in items) / 200
    absent = sum(not item["target"].any() for item in items) / 200
    assert alone == pytest.approx(0.25, abs=0.1) and absent == pytest.approx(0.25, abs=0.1)


def test_sources_of_one_family_are_never_mixed(clips):
    dataset = MixtureDataset(clips, DataConfig(crop_seconds=0.25), 16000, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert clips[dataset.draw_clip(rng, {"hiss", "low_hum"})].label in {"high_whistle", "clicks"}
        _, captions, family = dataset.source(rng, {"hiss", "low_hum", "clicks"})
        assert (captions, family) == (("high whistle",), "high_whistle")


def test_two_families_are_enough_for_every_kind_of_item(clips):
    config = DataConfig(crop_seconds=0.25, three_sources=0.5, target_absent=0.5, synthetic=0.3)
    dataset = MixtureDataset([clip for clip in clips if clip.family in {"hiss", "clicks"}], config, 16000, seed=0)
    for index in range(30):
        assert dataset[index]["mixture"].any()


def test_a_clips_own_captions_stay_its_own(clips):
    first = [replace(clip, captions=(f"{clip.path.parent.name} {clip.path.stem}",)) for clip in clips]
    dataset = MixtureDataset(first, DataConfig(crop_seconds=0.25), 16000, seed=0, phrasings={"hiss": ("a hissing",)})
    assert dataset.captions[first.index(next(c for c in first if c.label == "clicks"))] == ("clicks 0",)
    assert dataset.captions[first.index(next(c for c in first if c.label == "hiss"))] == ("hiss 0", "a hissing")


def test_batches_hold_waveforms_and_texts(clips):
    dataset = MixtureDataset(clips, DataConfig(crop_seconds=0.25), 16000, seed=0)
    batch = collate([dataset[0], dataset[1]])
    assert batch["mixture"].shape == (2, 4000) and len(batch["text"]) == 2


def test_every_class_has_twelve_wordings_and_five_held_out_that_training_never_sees():
    train, held_out = read_phrasings(PHRASINGS), read_phrasings(PHRASINGS, "held_out")
    assert set(train) == set(held_out) and len(train) == 224
    assert min(map(len, train.values())) >= 12 and set(map(len, held_out.values())) == {5}
    seen = {text.lower() for texts in train.values() for text in texts}
    assert not seen & {text.lower() for texts in held_out.values() for text in texts}
