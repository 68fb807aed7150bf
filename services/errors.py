"""Every way a command can fail, each with its exit code.

FedError
├── UsageError         2   a flag, setting or experiment file is wrong
│   └── ExperimentError
├── DataError          3   a data file is missing, truncated or altered
├── IdentityError      4   a certificate or key is missing, expired or not ours
├── NetworkError       5   a port is taken, or the other side can't be reached
├── StorageError       6   a folder can't be written
├── ConflictError      7   kept material contradicts the settings
├── QuorumError        8   fewer clients than needed, in the time given
├── RefusedError       9   the server refused this client
├── LostError         10   the other side was lost and did not come back
├── StoppedError      11   stopped by a signal before the run was complete
├── TrainingError     12   training could not go on
├── SetupError        13   Docker or Compose is missing, too old or out of reach
└── DistrustError     14   the server asks for what this client does not do

Code 0 is a completed run, code 1 an error nobody foresaw (a bug: its traceback goes to the log file, not the terminal).
`docs/operating.md` explains each code; a test holds the two together.
"""

from __future__ import annotations


class FedError(Exception):
    """Base of all foreseen failures: one line that says what was found, what was wanted and what to do.

    Args:
        found: the fact, with the offending value, in lower case.
        wanted: what would have been right; may be empty where it goes without saying.
        remedy: what the reader can do, as an instruction; may be empty where nothing can be done.
    """

    exit_code: int = 1

    def __init__(self, found: str, wanted: str = "", remedy: str = "") -> None:
        self.found = found
        self.wanted = wanted
        self.remedy = remedy
        super().__init__(found, wanted, remedy)

    def __str__(self) -> str:
        parts = [self.found, f"wanted {self.wanted}" if self.wanted else "", self.remedy]
        return "; ".join(part for part in parts if part)


class UsageError(FedError):
    """A flag or a setting can't be used."""

    exit_code = 2


class ExperimentError(UsageError):
    """The experiment file can't be used; `found` names the file and the key."""


class DataError(FedError):
    """A data file is missing, truncated, altered or of the wrong shape."""

    exit_code = 3


class IdentityError(FedError):
    """A certificate or key is missing, unreadable, expired, or not signed by the CA that counts."""

    exit_code = 4


class NetworkError(FedError):
    """A port is taken, a name doesn't resolve, or the other side doesn't answer in the time given."""

    exit_code = 5


class StorageError(FedError):
    """A folder can't be written: permissions, or no space left."""

    exit_code = 6


class ConflictError(FedError):
    """Kept material contradicts the settings; the message names both and the way out."""

    exit_code = 7


class QuorumError(FedError):
    """Fewer clients than needed came in the time given."""

    exit_code = 8


class RefusedError(FedError):
    """The server refused this client, for the reason given."""

    exit_code = 9


class LostError(FedError):
    """The other side was lost and did not come back in the time given."""

    exit_code = 10


class StoppedError(FedError):
    """A signal ended the run before it was complete."""

    exit_code = 11


class TrainingError(FedError):
    """Training could not go on: a client reported a failure, or the model stopped being finite."""

    exit_code = 12


class SetupError(FedError):
    """Docker or Compose is missing, too old or out of reach (the code `script/bootstrap` ends with)."""

    exit_code = 13


class DistrustError(FedError):
    """The server asks for what this client does not do: code, too large a model, nonsense, what it keeps to itself."""

    exit_code = 14


def told(error: Exception) -> str:
    """Word a client's failure for its server: what the client itself says, and of anything else its kind alone.

    Libraries put into their errors what they failed on: labels, values, paths. Those stay in the client's own log, and
    so does what a site's data are found to be; what they should have been is told.
    """
    if isinstance(error, DataError):
        return "its data can't be used" + (f"; wanted {error.wanted}" if error.wanted else "")
    return str(error) if isinstance(error, FedError) else f"{type(error).__name__}; its own log says more"
