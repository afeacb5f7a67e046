"""Which weights are available: given files, the libraries' caches, downloads from a local server, and copies."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from tuner.architecture.backbones import build_backbone
from tuner.errors import BackboneError
from tuner.pretrained.weights import AvailableWeights, find_weights, load_weights, restore_weights
from tuner.pretrained.weights_file import weights_digest

NAME, OTHER, TIMM = "shufflenet_v2_x0_5", "mobilenet_v3_small", "timm/mobilenetv3_small_050"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of weights for the backbone NAME."""
    torch.manual_seed(0)
    path = tmp_path / "given.pth"
    torch.save(build_backbone(NAME).model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a port that no one listens to, in place of every server; and empty caches of the libraries."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    for name in (NAME, OTHER):
        set_url(monkeypatch, name, f"{address}/{name}-00000000.pth")
    return address


def set_url(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    """Change where torchvision downloads its default weights from."""
    from torchvision.models import get_model_weights

    monkeypatch.setattr(get_model_weights(name).DEFAULT.value, "url", url)


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a web server on this machine, and yield its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A web server of this machine: its folder, its address, and the requests that it has answered."""
    folder, requests = tmp_path / "site", list[str]()
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            requests.append(self.command)

    with serving(functools.partial(Handler, directory=str(folder))) as address:
        yield folder, address, requests


def test_given_weights_are_copied_without_their_classifier_and_loaded_by_digest(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (found,), lines = find_weights([], {NAME: file}, cache_dir=cache)
    assert found == AvailableWeights(NAME, found.digest, cache / "weights" / f"{found.digest}.pt")
    assert lines == []
    state = torch.load(file)
    for key in (found, found.digest):
        weights = load_weights(key, cache)
        assert set(state) - set(weights) == {"fc.weight", "fc.bias"}
        assert all(torch.equal(one, state[name]) for name, one in weights.items())
        assert weights_digest(weights) == found.digest
    assert [path.name for path in (cache / "weights").iterdir()] == [f"{found.digest}.pt"]


def test_the_copy_is_kept_if_it_is_complete_and_replaced_if_it_is_damaged(file: Path, tmp_path: Path) -> None:
    (found,), _ = find_weights([NAME], {NAME: file}, cache_dir=tmp_path)
    written = found.path.stat().st_mtime_ns
    find_weights([NAME], {NAME: file}, cache_dir=tmp_path)
    assert found.path.stat().st_mtime_ns == written
    found.path.write_bytes(found.path.read_bytes()[:1000])
    with pytest.raises(
        BackboneError, match=rf"pretrained weights are damaged .*: run the search again with --weights {NAME}="
    ):
        load_weights(found, tmp_path)
    find_weights([NAME], {NAME: file}, cache_dir=tmp_path)
    assert load_weights(found, tmp_path)


def test_a_copy_that_has_changed_or_is_missing_is_an_error(file: Path, tmp_path: Path) -> None:
    (found,), _ = find_weights([NAME], {NAME: file}, cache_dir=tmp_path)
    weights = load_weights(found, tmp_path)
    weights["conv5.0.weight"][0] += 1
    torch.save(weights, found.path)
    with pytest.raises(BackboneError, match="have changed since they were stored"):
        load_weights(found, tmp_path)
    torch.save([1], found.path)
    with pytest.raises(BackboneError, match="are damaged"):
        load_weights(found, tmp_path)
    found.path.unlink()
    with pytest.raises(BackboneError, match=r"cannot be read: No such file.*: run the search again"):
        load_weights(found, tmp_path)


def test_weights_that_cannot_be_downloaded_are_named_in_one_line_at_once(file: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    found, (line,) = find_weights([OTHER, NAME, TIMM], {NAME: file}, cache_dir=tmp_path / "cache")
    assert time.monotonic() - start < 60  # a guard against waiting, not a measurement
    assert [one.backbone for one in found] == [NAME]
    assert "\n" not in line
    assert f"{OTHER}, {TIMM} (127.0.0.1:" in line
    assert "cannot be reached: Connection refused" in line


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (OTHER, r"put http://127.0.0.1:\d+/{name}-00000000.pth into .*checkpoints, or give --weights {name}=FILE"),
        (TIMM, r"from https://huggingface.co/timm/mobilenetv3_small_050\S*, and give --weights {name}=FILE"),
    ],
)
def test_a_backbone_that_was_asked_for_by_name_must_have_weights(
    name: str, advice: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=f"{name} has no weights here .*{advice.format(name=name)}") as caught:
        find_weights([name], {NAME: file}, cache_dir=tmp_path, asked_by_name=[name])
    assert "\n" not in str(caught.value)


def test_a_search_without_any_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=f"at least one backbone must have weights.*{NAME}, {OTHER}.*--weights"):
        find_weights([NAME, OTHER], {}, cache_dir=tmp_path)
    with pytest.raises(BackboneError, match="needs at least one backbone"):
        find_weights([], {}, cache_dir=tmp_path)


def test_unknown_names_and_files_that_do_not_fit_are_errors(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="did you mean"):
        find_weights(["resnet19"], {NAME: file}, cache_dir=tmp_path)
    with pytest.raises(BackboneError, match="did you mean"):
        find_weights([NAME], {"timm/resnet19": file, NAME: file}, cache_dir=tmp_path)
    with pytest.raises(BackboneError, match=f"given.pth: not weights of {OTHER}"):
        find_weights([NAME], {OTHER: file}, cache_dir=tmp_path)


def test_a_network_that_cannot_be_a_backbone_is_refused_before_a_download(tmp_path: Path) -> None:
    name = "timm/levit_128s"  # it has two classifiers
    with pytest.raises(BackboneError, match=f"must end with one linear classifier, and {name} does not"):
        find_weights([name], {}, cache_dir=tmp_path, asked_by_name=[name])


def test_without_timm_its_backbones_are_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    _, (line,) = find_weights([TIMM], {NAME: file}, cache_dir=tmp_path)
    assert line.endswith(f'{TIMM} (timm is not installed: pip install "tuner[pretrained]")')
    with pytest.raises(BackboneError, match="timm is not installed"):
        find_weights([TIMM], {NAME: file}, cache_dir=tmp_path, asked_by_name=[TIMM])


def test_weights_are_downloaded_once_into_torchs_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str, list[str]]
) -> None:
    folder, address, requests = site
    name = f"shufflenet-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(file.read_bytes())
    set_url(monkeypatch, NAME, f"{address}/{name}")
    progress: list[tuple[str, int, int]] = []
    (found,), _ = find_weights(
        [NAME], {}, cache_dir=tmp_path / "a", asked_by_name=[NAME], report=lambda *one: progress.append(one)
    )
    assert (tmp_path / "hub" / "checkpoints" / name).read_bytes() == file.read_bytes()
    assert requests == ["HEAD", "GET"]
    (again,), _ = find_weights([NAME], {}, cache_dir=tmp_path / "b")
    assert again.digest == found.digest
    assert requests == ["HEAD", "GET"]
    assert progress[0][0] == f"downloading the weights of {NAME}"
    assert [done for _, done, _ in progress] == sorted({done for _, done, _ in progress})
    assert progress[-1][1:] == (file.stat().st_size, file.stat().st_size)
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(b"damaged")
    with pytest.raises(BackboneError, match=f"{name} is damaged: delete it"):
        find_weights([NAME], {}, cache_dir=tmp_path, asked_by_name=[NAME])


@pytest.mark.parametrize("name", ["shufflenet-00000000.pth", "missing-00000000.pth"])
def test_a_download_of_another_file_or_of_none_is_named(
    name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str, list[str]]
) -> None:
    folder, address, _ = site
    (folder / "shufflenet-00000000.pth").write_bytes(file.read_bytes())
    set_url(monkeypatch, NAME, f"{address}/{name}")
    with pytest.raises(BackboneError, match=rf"{name}: (invalid hash value|.*404|.*not found)") as caught:
        find_weights([NAME], {}, cache_dir=tmp_path, asked_by_name=[NAME])
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


def test_a_server_that_does_not_answer_is_given_up_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.pretrained.downloads.CONNECT_SECONDS", 0.3)
    with socket.socket() as silent:  # it accepts connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name in (NAME, OTHER):
            set_url(monkeypatch, name, f"{address}/{name}-00000000.pth")
        with pytest.raises(BackboneError, match=r"cannot be reached: (no answer within|timed out)"):
            find_weights([NAME, OTHER], {}, cache_dir=tmp_path)


def test_weights_in_the_cache_of_the_hub_are_used_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.models import get_pretrained_cfg

    state = dict(build_backbone(TIMM).model.state_dict())
    repository = get_pretrained_cfg(TIMM.removeprefix("timm/")).hf_hub_id.replace("/", "--")
    folder = tmp_path / "huggingface" / f"models--{repository}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (found,), _ = find_weights([TIMM], {}, cache_dir=tmp_path / "cache")
    weights = load_weights(found, tmp_path / "cache")
    assert set(state) - set(weights) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(one, state[name]) for name, one in weights.items())


@pytest.mark.parametrize("is_reported", [True, False])
def test_weights_are_downloaded_from_the_hub_and_that_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reported: bool
) -> None:
    state = dict(build_backbone(TIMM).model.state_dict())
    content = save(state)

    class Handler(http.server.BaseHTTPRequestHandler):
        """The part of the hub that answers for one file of one repository."""

        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/resolve/main/model.safetensors") else 404)
            for name, value in (("ETag", '"abc"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            return

    progress: list[tuple[str, int, int]] = []
    with serving(Handler) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        (found,), _ = find_weights(
            [TIMM],
            {},
            cache_dir=tmp_path / "cache",
            asked_by_name=[TIMM],
            report=(lambda *one: progress.append(one)) if is_reported else None,
        )
    weights = load_weights(found, tmp_path / "cache")
    assert all(torch.equal(one, state[name]) for name, one in weights.items())
    if is_reported:
        assert {what for what, _, _ in progress} == {f"downloading the weights of {TIMM}"}
        assert progress[-1][1:] == (len(content), len(content))


def test_an_offline_hub_is_respected(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, (line,) = find_weights([TIMM], {NAME: file}, cache_dir=tmp_path)
    assert line.endswith(f"{TIMM} (HF_HUB_OFFLINE is set)")


def test_nothing_is_downloaded_if_that_is_not_allowed(tmp_path: Path, file: Path) -> None:
    names, given = [NAME, OTHER, TIMM], {NAME: file}
    found, (note,) = find_weights(names, given, cache_dir=tmp_path / "cache", download=False)
    assert [one.backbone for one in found] == [NAME]
    assert note.endswith(f"{OTHER}, {TIMM} (in no cache, and nothing may be downloaded)")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, file: Path) -> None:
    state = torch.load(file, weights_only=True)
    name = next(iter(state))
    state[name].view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(BackboneError, match=rf"the weights of {NAME} must be finite numbers, and {name} is not"):
        find_weights([NAME], {NAME: tmp_path / "broken.pth"}, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_copy_that_is_gone_is_made_again_from_the_librarys_own_weights(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str, list[str]], is_damaged: bool
) -> None:
    folder, address, requests = site
    name = f"shufflenet-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(file.read_bytes())
    set_url(monkeypatch, NAME, f"{address}/{name}")
    (found,), _ = find_weights([NAME], {NAME: file}, cache_dir=tmp_path / "cache")
    restore_weights({NAME: found.digest}, tmp_path / "cache")
    assert requests == []
    found.path.unlink()
    if is_damaged:
        found.path.write_bytes(b"damaged")
    with pytest.raises(BackboneError, match=rf"pretrained weights (cannot be read|are damaged).*--weights {NAME}=FILE"):
        restore_weights({NAME: found.digest}, tmp_path / "cache", download=False)
    restore_weights({NAME: found.digest}, tmp_path / "cache")
    assert requests == ["HEAD", "GET"]
    assert load_weights(found, tmp_path / "cache")


def test_other_weights_do_not_take_the_place_of_a_copy_that_is_gone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,), _ = find_weights([NAME], {NAME: file}, cache_dir=tmp_path / "cache")
    found.path.unlink()
    others = {name: one + 1 for name, one in torch.load(file, weights_only=True).items()}
    content = io.BytesIO()
    torch.save(others, content)
    cached = f"shufflenet-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    set_url(monkeypatch, NAME, f"http://127.0.0.1:9/{cached}")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / cached).write_bytes(content.getvalue())
    with pytest.raises(BackboneError, match=rf"{found.digest}.pt: pretrained weights cannot be read: No such file"):
        restore_weights({NAME: found.digest}, tmp_path / "cache")
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


@pytest.mark.parametrize("is_given", [False, True])
def test_weights_whose_images_cannot_be_prepared_are_refused_before_they_are_downloaded(
    file: Path, tmp_path: Path, is_given: bool
) -> None:
    name = "timm/convnext_base.fb_in22k_ft_in1k_384"
    with pytest.raises(
        BackboneError, match=rf"of {name} expect the crop mode 'squash', which is not supported: choose"
    ):
        find_weights([name], {name: file} if is_given else {}, cache_dir=tmp_path)
