"""Gains as words."""

import math

import pytest

from flowsep.errors import UsageError
from flowsep.gains import MUTE, amplitude, in_words, parse_decibels, parse_gains


def test_gains_are_read_in_order_with_tidied_texts():
    found = parse_gains([" dog  barking =-12", "speech=+3 dB", "x=y=.5", "hum= MUTE ", "rain=−6dB"])
    assert list(found.items()) == [("dog barking", -12), ("speech", 3), ("x=y", 0.5), ("hum", MUTE), ("rain", -6)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a dog"], "has no '='"),
        (["a dog:-12"], "has no '='"),
        (["=-12"], "--gain is empty"),
        ([" =-12"], "--gain is empty"),
        (["a dog="], "not a number"),
        (["a dog=loud"], "not a number"),
        (["a dog=--3"], "not a number"),
        (["a dog=1,5"], "not a number"),
        (["a dog=1_0"], "not a number"),
        (["a dog=1e1"], "not a number"),
        (["a dog=nan"], "not a number"),
        (["a dog=-inf"], "write mute"),
        (["a dog=infinity"], "write mute"),
        (["a dog=-3", "A  Dog=2"], "twice"),
        (["x" * 1001 + "=3"], "1001 characters"),
    ],
)
def test_what_is_no_gain_is_refused_with_what_to_write(arguments, words):
    with pytest.raises(UsageError, match=words):
        parse_gains(arguments)


def test_a_message_names_the_option_that_is_wrong():
    with pytest.raises(UsageError, match=r"^--rest: 'quiet' is not a number of dB"):
        parse_decibels("quiet", "--rest")


def test_zero_decibels_are_exactly_one_and_mute_exactly_zero():
    assert amplitude(0.0) == 1.0 and amplitude(MUTE) == 0.0
    assert amplitude(-20.0) == pytest.approx(0.1) and -math.inf == MUTE


def test_gains_in_file_names_tell_up_from_down():
    assert [in_words(gain) for gain in (-12.0, 3.5, 0.0, MUTE)] == ["minus 12", "plus 3.5", "0", "mute"]
