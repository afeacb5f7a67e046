"""What a user did wrong, in one line each.

TunerError
├── OptionError        an option out of its range
├── SpaceError         a search space that cannot be sampled
├── BackboneError      a pretrained network that is unknown, or whose weights cannot be loaded
├── DataError          images that cannot be read or split
│   └── BrokenImage    one image file that cannot be read
├── StudyError         a study that does not exist, or is not the one asked for
├── CheckpointError    a file that is not a checkpoint of ours
├── DeviceError        a device that does not exist here
│   └── UnfitDevice    a device that exists, but cannot train
├── RunnerError        processes that cannot train
└── InstallationError  installed packages that do not fit together

Every message gives the rule, the value and what to do. The command line prints it and exits with code 2.
"""

from pathlib import Path


class TunerError(Exception):
    """Base of everything that a user can fix; never a fault of the program itself."""


def reason_of(error: OSError) -> str:
    """Return the system's reason for an error, in words; some errors raised by libraries have none."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


class OptionError(TunerError):
    """An option has a value that it cannot have."""


class SpaceError(TunerError):
    """A search space, or a configuration in it, breaks a rule of the schema."""


class BackboneError(TunerError):
    """A backbone is unknown, or its pretrained weights are missing or do not fit."""


class DataError(TunerError):
    """A data set is missing, broken, or too small for what was asked."""


class BrokenImage(DataError):  # noqa: N818 - what is wrong, not an error of its own
    """An image file that cannot be read, with the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"every image must be readable; {path} is not ({reason}): fix or remove it")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.reason)


class StudyError(TunerError):
    """A study is missing, in use, or was started with other settings."""


class CheckpointError(TunerError):
    """A file is not a checkpoint, or one of a newer format."""


class DeviceError(TunerError):
    """The device asked for does not exist here."""


class UnfitDevice(DeviceError):  # noqa: N818 - what is wrong, not an error of its own
    """A device exists, but this build of torch cannot compute a training step on it."""


class RunnerError(TunerError):
    """The training processes cannot be started, or cannot use their device."""


class InstallationError(TunerError):
    """Installed packages do not fit together."""
