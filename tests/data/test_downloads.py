import functools
import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_data import cut_network, make_spec, write_mnist

from tuner.data.development_part import load_development
from tuner.data.sealed import load_test_set
from tuner.errors import DataError


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("usps", "usps.t.bz2"),
        ("svhn", "test_32x32.mat"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("stl10", "stl10_binary/train_X.bin"),
        ("qmnist", "QMNIST/raw/qmnist-train-labels-idx2-int"),
        ("emnist-letters", "EMNIST/raw/emnist-letters-train-images-idx3-ubyte"),
    ],
)
def test_without_network_the_missing_files_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    cut_network(monkeypatch)
    spec = make_spec(name, tmp_path)
    with pytest.raises(DataError, match=r"needs files that do not exist \(.*not known.*\): put in place") as caught:
        load_development(spec)
    assert str(spec.data_dir / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_the_files_that_are_missing_are_asked_for_and_nothing_is_fetched_when_that_is_off(tmp_path: Path) -> None:
    spec = make_spec("mnist", tmp_path, download=False)
    write_mnist(spec.data_dir / "MNIST" / "raw")
    (spec.data_dir / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"downloading is off.*t10k-labels-idx1-ubyte") as caught:
        load_development(spec)
    assert "train-images" not in str(caught.value)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A web server of this machine with a tiny MNIST, from which torchvision downloads."""
    site = tmp_path / "site"
    resources = []
    for name in write_mnist(site):
        (site / f"{name}.gz").write_bytes(gzip.compress((site / name).read_bytes()))
        resources.append((f"{name}.gz", hashlib.md5((site / f"{name}.gz").read_bytes()).hexdigest()))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("mirror")
def test_absent_files_are_downloaded_with_progress_in_bytes_and_nothing_on_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import utils

    own_bar, timeout = utils.tqdm, socket.getdefaulttimeout()
    seen: list[tuple[str, int, int]] = []
    spec = make_spec("mnist", tmp_path)
    development = load_development(spec, report=lambda *values: seen.append(values))
    assert len(development.labels_N) == 40
    total = (tmp_path / "site" / "train-images-idx3-ubyte.gz").stat().st_size
    assert ("downloading", total, total) in seen
    assert capfd.readouterr() == ("", "")
    assert utils.tqdm is own_bar
    assert socket.getdefaulttimeout() == timeout


@pytest.mark.usefixtures("mirror")
def test_a_download_without_a_listener_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(load_test_set(make_spec("mnist", tmp_path)).labels_N) == 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("mirror")
def test_a_mirror_with_other_files_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "site" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"do not exist \(.*corrupted.*train-images-idx3-ubyte"):
        load_development(make_spec("mnist", tmp_path))
