"""Weights by name: `hf://owner/name[@revision][/path]`, `timm/NAME` and names of the catalogue.

They are fetched by the Hub's own client, with its cache and settings (HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from vitral.config.catalogue import find_entry
from vitral.errors import RequestError
from vitral.models.weights.archive import read_json
from vitral.models.weights.source import INDEX_NAMES, WEIGHT_NAMES, shard_names
from vitral.version import __version__

# Files beside the weights, configs first: most repositories have them.
COMPANIONS = ("config.json", "preprocessor_config.json", "reference.safetensors")
# One file or shards, safetensors first; then rarer names.
_WEIGHTS = tuple(dict.fromkeys(
    (WEIGHT_NAMES[0], INDEX_NAMES[0], "pytorch_model.bin", INDEX_NAMES[1], *WEIGHT_NAMES)
))  # fmt: skip
# pathlib collapses two slashes into one.
_SCHEME = re.compile(r"^hf:/{1,2}(?=[^/])")
# A revision ends at a slash, except for those that the Hub makes itself.
_ADDRESS = re.compile(
    r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?"
    r"(?:/(?P<path>.+?))?/*"
)


@dataclass(frozen=True)
class HubAddress:
    """A repository on the Hub, or a file or folder in it."""

    repository: str
    """`owner/name`."""
    revision: str | None = None
    """A branch, tag or commit; None: `main`."""
    path: str = ""
    """Path in the repository; "": all of it."""

    def __str__(self) -> str:
        """Return the address as users write it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def find_address(name: str | Path) -> HubAddress | None:
    """Return the Hub address of the weights of that name; None: the name is a local path.

    Args:
        name: an existing local path takes precedence, unless the name begins with hf://.

    Raises:
        RequestError: `hf://` without owner and name, or a catalogue name of weights elsewhere.
    """
    text = str(name)
    if _SCHEME.match(text) or re.fullmatch(r"hf:/*", text):
        return parse_address(text)
    if Path(name).exists():
        return None
    entry = find_entry(text)
    if entry is None:
        return parse_address(f"hf://{text}") if re.match(r"timm/[^/]+$", text) else None
    if not _SCHEME.match(entry.origin):
        raise RequestError(
            f"{entry.name} is not on the Hub: download {entry.origin} and give that file's path"
        )
    return parse_address(entry.origin)


def parse_address(text: str) -> HubAddress:
    """Parse `hf://owner/name[@revision][/path]`.

    Raises:
        RequestError: it has no owner and name.
    """
    found = _ADDRESS.fullmatch(_SCHEME.sub("", text))
    if found is None:
        raise RequestError(f"{text} names no repository: write hf://owner/name[@revision][/path]")
    revision = found["revision"]
    return HubAddress(
        found["repository"], unquote(revision) if revision else None, found["path"] or ""
    )


def fetch(address: HubAddress) -> Path:
    """Fetch what loading a model needs; return the local folder or file of the address.

    Raises:
        RequestError: the client is not installed, or the files can't be fetched.
    """
    fetcher = _Fetcher(address)
    if address.path:
        file = fetcher.get(address.path)
        if file is not None:
            if file.name in WEIGHT_NAMES:
                folder = str(PurePosixPath(address.path).parent)
                fetcher.get_companions(folder)
                fetcher.check_companions(folder)
            return file
    fetcher.get_companions(address.path)
    for name in _WEIGHTS:
        file = fetcher.get(_join(address.path, name))
        if file is not None:
            fetcher.get_shards(file)
            fetcher.check_companions(address.path)
            return file.parent
    raise fetcher.absent()


class _Fetcher:
    """Fetcher of the files of one address, all of the same commit."""

    def __init__(self, address: HubAddress) -> None:
        try:
            from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache
        except ImportError:
            raise RequestError(
                f"{address} needs the Hub's client: pip install 'vitral[hub]'"
            ) from None
        self.download, self.look_up, self.errors = hf_hub_download, try_to_load_from_cache, errors
        self.address = address
        self.commit: str | None = None
        """Commit of the first file that was found; all others are of the same commit."""
        self.unreachable: str | None = None
        """Why the Hub did not respond; it is not asked again after that."""
        self.not_known: list[str] = []
        """Files that may be in the repository, which can't be reached."""
        self.companions: dict[str, Path] = {}
        """Those of COMPANIONS that were found."""

    def get(self, name: str) -> Path | None:
        """Return a file from the cache or the Hub; None: it does not exist."""
        errors, repository = self.errors, self.address.repository
        revision = self.commit or self.address.revision
        try:
            with _explained(self.address, errors):
                cached = self.look_up(repository, name, revision=revision) if self.commit else None
                if cached is not None and not isinstance(cached, str):
                    return None  # the cache knows that this commit does not have it
                path = Path(
                    self.download(
                        repository,
                        name,
                        revision=revision,
                        local_files_only=self.unreachable is not None,
                        library_name="vitral",
                        library_version=__version__,
                    )
                )
        except errors.LocalEntryNotFoundError as error:
            self.unreachable = self.unreachable or _why_unreachable(error, errors)
            self.not_known.append(name)
            return None
        except errors.EntryNotFoundError:
            return None
        self.commit = path.parents[len(PurePosixPath(name).parts) - 1].name
        return path

    def get_companions(self, folder: str) -> None:
        """Fetch the files beside the weights, as far as they exist."""
        for name in COMPANIONS:
            if (path := self.get(_join(folder, name))) is not None:
                self.companions[name] = path

    def check_companions(self, folder: str) -> None:
        """Check that no file that says how to use the weights may be missing.

        Raises:
            RequestError: one may be in the repository, is not in the cache, and the Hub can't be
                reached.
        """
        config, processor, _ = COMPANIONS
        needed = [config]
        if config in self.companions and "model_type" in read_json(self.companions[config]):
            needed.append(processor)  # Hugging Face's own; timm's and ours have all in config.json
        for name in needed:
            if self.commit and self._is_known_absent(_join(folder, name)):
                continue
            if _join(folder, name) in self.not_known:
                raise self.absent(name)

    def _is_known_absent(self, name: str) -> bool:
        cached = self.look_up(self.address.repository, name, revision=self.commit)
        return cached is not None and not isinstance(cached, str)

    def get_shards(self, index: Path) -> None:
        """Fetch the files that an index names; nothing for a file that is no index.

        Raises:
            RequestError: one of them is not there.
            ModelFileError: it names none, or files elsewhere.
        """
        if index.name not in INDEX_NAMES:
            return
        for shard in shard_names(index):
            if self.get(_join(self.address.path, shard)) is None:
                raise self.absent(shard)

    def absent(self, name: str | None = None) -> RequestError:
        """Return the error for missing weights or, with a name, for a missing shard."""
        if self.unreachable is not None:
            what = f"{name} of {self.address}" if name else str(self.address)
            return RequestError(f"{what} is not in the Hub's cache, and {self.unreachable}")
        if name:
            return RequestError(f"{self.address} has no file {name}, which its index names")
        if self.address.path:
            return RequestError(f"{self.address}: there is no such file, nor a folder with weights")
        return RequestError(
            f"{self.address} has none of {', '.join(_WEIGHTS)}: name its file of weights, as "
            f"{self.address}/FILE"
        )


@contextmanager
def _explained(address: HubAddress, errors: Any) -> Iterator[None]:
    """Turn the client's errors into one sentence, except for a missing file."""
    repository = address.repository
    try:
        yield
    except errors.EntryNotFoundError:
        raise
    except errors.GatedRepoError:
        raise RequestError(
            f"hf://{repository} is open only to those whom its owners let in: ask for access on "
            "its page, then log in by `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise RequestError(
            f"there is no repository {repository} on the Hub, or it is private: check the name, or "
            "log in by `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise RequestError(
            f"{repository} has no revision {address.revision!r}: give a branch, tag or commit of it"
        ) from None
    except errors.HFValidationError as error:
        raise RequestError(f"{address} can't be a repository: {error}") from None
    # Base classes of the client's errors: those of its transport, whichever it is, and OSError.
    except (errors.HfHubHTTPError, *errors.HfHubHTTPError.__bases__) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(f"{address} can't be fetched: {reason}; try again") from None


def _why_unreachable(error: BaseException, errors: Any) -> str:
    cause = error.__cause__
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it once, to fetch it"
    reason = str(cause or error).strip().partition("\n")[0]
    return f"the Hub can't be reached ({reason}): check the connection"


def _join(folder: str, name: str) -> str:
    return name if folder in ("", ".") else f"{folder}/{name}"
