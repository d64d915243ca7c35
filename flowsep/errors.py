"""What can go wrong for a user, each with the exit code that the command line gives it.

A message is one line on what is wrong and, after a semicolon or full stop, what to do about it. It never holds a
traceback; `flowsep -v` shows that. The exit codes are: 0 ok, 1 unexpected, 2 usage, 3 input, 4 model, 5 device or
memory, 6 some items of a batch failed, 7 a described sound judged absent (--fail-if-absent), 130 interrupted.
"""

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # what libraries say


class FlowSepError(Exception):
    """Base of the errors that users can cause and mend."""

    exit_code = 1


class UsageError(FlowSepError, ValueError):
    """An option, a query or a configuration key that cannot be used as given."""

    exit_code = 2


class InputError(FlowSepError, ValueError):
    """An input file that is missing, unreadable or unusable, or an output that cannot be written."""

    exit_code = 3


class ModelError(FlowSepError):
    """A model or checkpoint that is not found, incomplete or not what it says it is."""

    exit_code = 4


class DeviceError(FlowSepError):
    """A device that is not there, or not enough memory on it."""

    exit_code = 5


class PartialFailure(FlowSepError):
    """Some files of a batch failed; the others are done."""

    exit_code = 6


class SoundAbsent(FlowSepError):
    """With `--fail-if-absent`: a described sound is judged not to be there. The outputs are written all the same."""

    exit_code = 7


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that memory is at an end."""
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in NO_MEMORY)
