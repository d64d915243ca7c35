from dataclasses import replace

import numpy as np
import pytest
import soundfile

from flowsep.data.dataset import DataConfig, DataNotice, MixtureDataset, collate, load_clip
from flowsep.data.manifest import PHRASINGS, read_manifest, read_phrasings, select
from flowsep.data.mixing import (
    change_speed,
    coded,
    energy,
    equalise,
    limit_together,
    low_passed,
    mix_at_snr,
    place,
    reverberate,
)
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


def test_low_passing_keeps_what_is_below_the_edge_and_the_sum_of_the_parts():
    time = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (500, 6000))
    parts = low_passed(np.stack([low, high]), 16000, 3000.0)
    inside = slice(1000, 15000)
    np.testing.assert_allclose(parts[0, inside], low[inside], atol=1e-3)
    assert energy(parts[1, inside]) < 1e-5 * energy(high[inside])
    np.testing.assert_allclose(low_passed(low + high, 16000, 3000.0), parts.sum(0), atol=1e-5)


def test_a_codec_keeps_length_place_and_level_and_loses_detail():
    sound = 3 * np.convolve(noise(16000), np.ones(8, np.float32) / 8, "same").astype(np.float32)
    sound[4000] = 1.5  # louder than a file can hold
    poor, better = (coded(sound, 16000, quality) for quality in (0.0, 1.0))
    assert len(poor) == len(sound) and poor.dtype == np.float32
    errors = [energy(made - sound) / energy(sound) for made in (poor, better)]
    assert 0 < errors[1] < 0.1 * errors[0] < 0.1


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
        _, captions, family, _ = dataset.source(rng, {"hiss", "low_hum", "clicks"})
        assert (captions, family) == (("high whistle",), "high_whistle")


def test_hard_negatives_are_other_classes_of_the_targets_family(clips):
    families = {"hiss": "noise", "clicks": "noise", "low_hum": "tone", "high_whistle": "whistle"}
    listed = [replace(clip, family=families[clip.label]) for clip in clips]
    dataset = MixtureDataset(listed, DataConfig(crop_seconds=0.25, same_family=0.5), 16000, seed=0)
    marks = {label: 1.0 + number for number, label in enumerate(families)}
    dataset.audio = [np.full(8000, marks[clip.label], np.float16) for clip in listed]
    rng = np.random.default_rng(0)
    found = [dataset.sibling(rng, "hiss", "noise") for _ in range(200)]
    drawn = [pair for pair in found if pair is not None]
    assert len(drawn) == pytest.approx(100, abs=25)
    assert all(family == "noise" and (sound == marks["clicks"]).all() for sound, family in drawn)
    assert not any(dataset.sibling(rng, "low_hum", "tone") for _ in range(20))  # no other class in the family


def test_codec_and_band_limit_change_items_that_still_add_up(clips):
    config = DataConfig(crop_seconds=0.25)
    plain, codec, narrow = (
        MixtureDataset(clips, one, 16000, seed=0)
        for one in (config, replace(config, codec=1.0), replace(config, band_limit=1.0))
    )
    for number in range(4):
        for changed in (codec[number], narrow[number]):
            assert not np.allclose(changed["mixture"], plain[number]["mixture"], atol=1e-4)
            np.testing.assert_allclose(changed["mixture"], changed["target"] + changed["residual"], atol=1e-6)


def test_stand_ins_take_the_place_of_kinds_that_the_clips_hold_none_of(clips):
    config = DataConfig(crop_seconds=0.25, stand_ins=1.0, exclude=("pig",))
    listed = [replace(clips[0], label="cat_meow", family="cat"), *clips]
    worded = {"frog": ("a croak", "ribbit"), "cat_meow": ("a cat",)}
    dataset = MixtureDataset(listed, config, 16000, seed=0, phrasings=worded)
    assert {"frog", "siren", "sheep"} <= set(dataset.missing) and not {"cat_meow", "pig"} & set(dataset.missing)
    assert all(
        dataset.source(np.random.default_rng(n), {"frog", "siren"})[2] not in {"frog", "siren"} for n in range(60)
    )
    asked = {dataset[index]["text"] for index in range(300)}
    assert {"a croak", "ribbit", "sheep", "door knock"} <= asked and not asked & {"a cat", "pig", "frog"}
    assert not MixtureDataset(listed, replace(config, stand_ins=0.0), 16000, seed=0).missing
    some = MixtureDataset(listed, replace(config, stand_ins=0.2), 16000, seed=0)
    own = sum(some[index]["text"] in {clip.captions[0] for clip in listed} | {"a cat"} for index in range(300))
    assert own / 300 == pytest.approx(0.8, abs=0.1)


def test_stand_ins_also_meet_clips_of_one_family(clips):
    config = DataConfig(crop_seconds=0.25, stand_ins=0.5, three_sources=0.3, target_absent=0.3, target_alone=0.2)
    with pytest.warns(DataNotice):
        dataset = MixtureDataset([clip for clip in clips if clip.family == "hiss"], config, 16000, seed=0)
    assert all(dataset[index]["mixture"].any() for index in range(40))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_classes_that_are_never_drawn_are_not_waited_for(clips, share):
    config = DataConfig(crop_seconds=0.25, own_share=share)
    dataset = MixtureDataset(clips, config, 16000, seed=0, own={"hiss"})
    assert dataset.families_left(set()) and not dataset.families_left({"hiss"} if share else set(dataset.drawn))
    if share:  # the other sound is then a synthesised one, as it is for clips of one family
        asked = {dataset[index]["text"] for index in range(10)}
        assert asked == {"hiss"}


def test_a_broken_clip_is_named(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(InputError, match=r"empty\.wav is empty"):
        load_clip(tmp_path / "empty.wav", 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.1], np.float32), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav holds values that are no numbers"):
        load_clip(tmp_path / "nan.wav", 16000)


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
