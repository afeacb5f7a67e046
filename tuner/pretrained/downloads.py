"""Weights of torchvision and timm from the caches of these libraries, or downloaded into them."""

from __future__ import annotations

import hashlib
import inspect
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from tuner.architecture.backbones import build_backbone, input_of, is_timm
from tuner.data.dataset import Report
from tuner.errors import BackboneError, reason_of
from tuner.pretrained.download_progress import hub_bar, torch_downloads_reported
from tuner.pretrained.weights_file import read_weights

CONNECT_SECONDS = 10.0
"""Seconds without an answer after which a server counts as unreachable."""

DOWNLOADING = "downloading the weights of"
"""What is reported while weights are downloaded; the name of the backbone follows."""


class Unavailable(BackboneError):  # noqa: N818 - what is wrong, not an error of its own
    """The weights of a backbone, or of all of them, are in no cache and cannot be downloaded, with the reason."""


def library_weights(
    name: str, unreachable: dict[str, str], *, download: bool = True, report: Report | None = None
) -> dict[str, Tensor]:
    """Weights of a backbone from its library's cache, or downloaded into it.

    unreachable: reasons by server, which this function completes, so that no server is tried twice. download: whether
    weights that are in no cache may be downloaded. report: is called with the progress of a download. Raises
    Unavailable.
    """
    if not is_timm(name):
        input_of(name)  # refuses unknown names, and images that cannot be prepared
        return _torchvision_weights(name, unreachable, download=download, report=report)
    try:
        import timm
    except ImportError as error:
        raise Unavailable('timm is not installed: pip install "tuner[pretrained]"') from error
    input_of(name)
    with torch.device("meta"):
        build_backbone(name)  # before anything is downloaded, for some networks cannot be backbones
    return _timm_weights(name, timm, unreachable, download=download, report=report)


def where_from(name: str) -> str:
    """Where the weights of a backbone are downloaded from, and for torchvision the file that they are put into."""
    if is_timm(name):
        try:
            configuration = _timm_configuration(name)
        except ImportError:
            return ""
        source = configuration.url or ""
        if configuration.hf_hub_id:
            source = f"https://huggingface.co/{configuration.hf_hub_id}"
        return f" from {source}" if source else ""
    url = _url_of(name)
    return f"{url} into {_cached_file(url).parent}"


def _torchvision_weights(
    name: str, unreachable: dict[str, str], *, download: bool, report: Report | None
) -> dict[str, Tensor]:
    url = _url_of(name)
    path = _cached_file(url)
    hash_prefix = path.stem.rpartition("-")[2]  # as torch.hub expects: the first digits of the file's SHA-256
    if not path.exists():
        _check_reachable(url, unreachable, download=download)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            reported = torch_downloads_reported(report, _what(name)) if report else nullcontext()
            with _timeout(), reported:
                torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=report is not None)
        except OSError as error:
            if isinstance(error, HTTPError):
                error.close()
            raise Unavailable(f"{url}: {reason_of(error)}") from error
        except (HTTPException, RuntimeError) as error:  # RuntimeError: of a wrong hash
            raise Unavailable(f"{url}: {' '.join(str(error).split())}") from error
    else:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {reason_of(error)}") from error
        if not sha256.startswith(hash_prefix):
            raise Unavailable(f"{path} is damaged: delete it")
    return read_weights(path, name)


def _timm_weights(
    name: str, timm: Any, unreachable: dict[str, str], *, download: bool, report: Report | None
) -> dict[str, Tensor]:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub import utils as hub_utils

    hub: Any = hub_utils
    configuration = _timm_configuration(name)
    overlay: dict[str, str] = {}
    if configuration.hf_hub_id:
        for file in _hub_files(configuration):
            cached = try_to_load_from_cache(configuration.hf_hub_id, file)
            if isinstance(cached, str) and not overlay:
                overlay = {"file": cached}
        if not overlay and constants.HF_HUB_OFFLINE:
            raise Unavailable("HF_HUB_OFFLINE is set")
        url = constants.ENDPOINT
    elif configuration.url:
        url = configuration.url
        overlay = {"file": str(_cached_file(url))} if _cached_file(url).exists() else {}
    else:
        raise Unavailable("timm has no weights for it")
    if not overlay:
        _check_reachable(url, unreachable, download=download)
    had_bars = not hub.are_progress_bars_disabled()
    hub.disable_progress_bars()
    try:
        with _timeout(), torch_downloads_reported(report, _what(name)) if report else nullcontext():
            if report is not None and configuration.hf_hub_id and not overlay:
                overlay = _hub_download(configuration, report, _what(name))
            model = timm.create_model(
                name.removeprefix("timm/"), pretrained=True, pretrained_cfg_overlay=overlay or None
            )
    except Exception as error:  # timm and the hub raise errors of many packages
        raise Unavailable(f"timm cannot load it: {' '.join(str(error).split())[:200]}") from error
    finally:
        if had_bars:
            hub.enable_progress_bars()
    classifier = [key for key, module in model.named_modules() if module is model.get_classifier()]
    return {key: one for key, one in model.state_dict().items() if not key.startswith(f"{classifier[0]}.")}


def _hub_download(configuration: Any, report: Report, what: str) -> dict[str, str]:
    """Download weights into the hub's cache, and return where timm finds them; nothing if it has to find them itself.

    timm passes no progress function on to the hub, and earlier versions of the hub take none.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        return {}
    repository, _, revision = configuration.hf_hub_id.partition("@")
    for file in _hub_files(configuration):
        try:
            path = hf_hub_download(repository, file, revision=revision or None, tqdm_class=hub_bar(report, what))
        except LocalEntryNotFoundError:  # of a network that fails
            raise
        except EntryNotFoundError:
            continue
        return {"file": path}
    return {}


def _hub_files(configuration: Any) -> list[str]:
    """Names that the file of a network's weights may have in its repository."""
    name = configuration.hf_hub_filename
    return [name] if name else ["model.safetensors", "pytorch_model.bin"]


def _what(name: str) -> str:
    """What is reported while the weights of a backbone are downloaded."""
    return f"{DOWNLOADING} {name}"


def _timm_configuration(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name.removeprefix("timm/"))


def _url_of(name: str) -> str:
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name).DEFAULT.url
    return url


def _cached_file(url: str) -> Path:
    """The file of torch's cache that a URL is downloaded to."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _check_reachable(url: str, unreachable: dict[str, str], *, download: bool) -> None:
    """Raise Unavailable if nothing may be downloaded, or if a server does not answer in time.

    Any answer is one, such as that of a proxy. The request runs in a thread because the
    look-up of a name has no time limit of its own.
    """
    if not download:
        raise Unavailable("in no cache, and nothing may be downloaded")
    server = urlsplit(url).netloc
    if server not in unreachable:
        reasons: list[str] = []
        thread = threading.Thread(target=lambda: reasons.append(_reason_against(url)), daemon=True)
        thread.start()
        thread.join(CONNECT_SECONDS)
        unreachable[server] = reasons[0] if reasons else f"no answer within {CONNECT_SECONDS:.0f} s"
    if unreachable[server]:
        raise Unavailable(f"{server} cannot be reached: {unreachable[server]}")


def _reason_against(url: str) -> str:
    """Why a server cannot be reached; empty if it answers."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
            return ""
    except HTTPError as error:
        error.close()
        return ""
    except OSError as error:
        inner = getattr(error, "reason", error)
        return reason_of(inner) if isinstance(inner, OSError) else str(inner)
    except HTTPException as error:
        return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _timeout() -> Iterator[None]:
    """Limit how long a connection waits for an answer. torch and timm take no such limit."""
    own = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(own)
