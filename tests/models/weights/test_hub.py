"""Weights by name: the Hub's own client against a server on this machine that speaks for it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vitral.config.catalogue import read_catalogue
from vitral.errors import RequestError
from vitral.models.build import create_model
from vitral.models.weights import hub
from vitral.models.weights.hub import HubAddress, find_address, parse_address
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

# Names.


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://google/vit-base", HubAddress("google/vit-base")),
        ("hf:/google/vit-base", HubAddress("google/vit-base")),
        ("hf://google/vit-base/", HubAddress("google/vit-base")),
        ("hf://me/birds@v1.0", HubAddress("me/birds", "v1.0")),
        ("hf://me/birds@refs/pr/3", HubAddress("me/birds", "refs/pr/3")),
        ("hf://me/birds@refs%2Fpr%2F3/a.npz", HubAddress("me/birds", "refs/pr/3", "a.npz")),
        ("hf://me/birds/sub/file.npz", HubAddress("me/birds", None, "sub/file.npz")),
        ("hf://me/birds@main/sub/a@b.npz", HubAddress("me/birds", "main", "sub/a@b.npz")),
    ],
)
def test_an_address_has_a_repository_a_revision_and_a_path(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address
    assert find_address(text) == find_address(Path(text)) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["hf://google", "hf://a/", "hf://a/b@", "hf://", "hf:///a"])
def test_an_address_without_a_repository_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="write hf://owner/name" if text != "hf:///a" else "not"):
        load_model(text)


def test_names_of_timm_and_of_the_catalogue_are_known() -> None:
    assert find_address("timm/some_vit.in1k") == HubAddress("timm/some_vit.in1k")
    assert find_address("timm/folder/file") is None
    assert find_address("Google/ViT-Base-Patch16-224") == HubAddress("google/vit-base-patch16-224")
    assert find_address("runs/birds") is None
    on_hub = [entry for entry in read_catalogue() if entry.origin.startswith("hf://")]
    assert all(str(find_address(entry.name)) == entry.origin for entry in on_hub)


def test_what_lies_there_locally_goes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_address("timm/mine") is None
    assert find_address("hf://timm/mine") == HubAddress("timm/mine")


def test_an_entry_that_is_not_on_the_hub_names_its_address() -> None:
    entry = next(entry for entry in read_catalogue() if entry.origin.startswith("https://"))
    with pytest.raises(RequestError, match="is not on the Hub: download https://.* and give that"):
        load_model(entry.name)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RequestError, match=r"hf://a/b needs the Hub's client: pip install 'vitral"):
        load_model("hf://a/b")


def test_nothing_at_a_path_says_how_to_name_a_repository() -> None:
    with pytest.raises(RequestError, match="nothing at google/vit-bas: .* or hf://owner/name"):
        load_model("google/vit-bas")


# The client against a server that speaks for the Hub.

COMMIT = "1234567890abcdef1234567890abcdef12345678"
Files = dict[str, bytes]


class FakeHub(ThreadingHTTPServer):
    """Repositories of files, by the part of the Hub's protocol that the client uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Files] = {}
        self.commit = COMMIT
        self.gated = {"gated/model"}
        self.broken = {"broken/model"}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """Return the names of the files whose contents were asked for, and forget them."""
        names = [line.partition(" ")[2] for line in self.asked if line.startswith("GET ")]
        self.asked.clear()
        return names


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        parts = self.path.strip("/").split("/")
        repository = "/".join(parts[1:3] if parts[0] == "api" else parts[:2])
        name = "/".join(parts[4:])
        self.server.asked.append(f"{self.command} {name}" if name else self.path)
        if repository in self.server.broken:
            self.send(500, {})
        elif repository not in self.server.repositories:
            self.send(401, {"X-Error-Code": "RepoNotFound"})
        elif repository in self.server.gated:
            self.send(403, {"X-Error-Code": "GatedRepo"})
        elif parts[2] != "resolve" or parts[3] not in ("main", "v1", self.server.commit):
            self.send(404, {"X-Error-Code": "RevisionNotFound"})
        elif name not in self.server.repositories[repository]:
            self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.server.commit})
        else:
            content = self.server.repositories[repository][name]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.send(200, {"ETag": tag, "X-Repo-Commit": self.server.commit}, content)

    def send(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def contents(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Small models, as they would lie on the Hub."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = create_model(
        "ViT-Mi/8", image_size=16, embed_dim=16, depth=1, num_heads=2, mlp_dim=16, num_classes=3
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    model.classes = ("ant", "bee", "crow")
    save_model(model, root / "theirs", format="huggingface")
    save_model(model, root / "ours")
    save_model(model, root / "weights.npz", format="official")
    theirs = contents(root / "theirs") | {"README.md": b"#", "onnx/model.onnx": b"0"}
    tensors = load_file(root / "theirs" / "model.safetensors")
    torch.save(tensors, root / "model.bin")
    bare = {name: c for name, c in theirs.items() if name != "model.safetensors"}
    return {
        "me/theirs": theirs | {"pytorch_model.bin": b"not asked for"},
        "me/ours": contents(root / "ours") | {"notes.txt": b"-"},
        "me/shards": bare | shards(tensors, root),
        "me/older": bare | {"pytorch_model.bin": (root / "model.bin").read_bytes()},
        "me/arrays": {
            "README.md": b"#", "sub/weights.npz": (root / "weights.npz").read_bytes(),
            **{f"sub/deeper/{name}": content for name, content in theirs.items()},
        },
        "me/nothing": {"README.md": b"#"},
        "me/torn": bare | dict(list(shards(tensors, root).items())[1:]),
        "timm/some_vit.in1k": theirs,
        "google/vit-base-patch16-224": theirs,
        "gated/model": theirs,
        "broken/model": theirs,
    }  # fmt: skip


def shards(tensors: dict[str, torch.Tensor], root: Path) -> Files:
    names = sorted(tensors)
    files, weight_map = {}, {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        part = {name: tensors[name] for name in names[number - 1 :: 2]}
        save_file(part, root / shard)
        files[shard] = (root / shard).read_bytes()
        weight_map |= dict.fromkeys(part, shard)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


@pytest.fixture
def server(
    repositories: dict[str, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """A hub for the client in this process, with a cache of its own."""
    pytest.importorskip("huggingface_hub", reason="needs the Hub's client: the extra `hub`")
    from huggingface_hub import constants

    fake = FakeHub()
    fake.repositories = repositories
    threading.Thread(target=fake.serve_forever, args=(0.02,), daemon=True).start()
    # What the client made of the environment when it was imported, by this module or another.
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        fake.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield fake
    fake.shutdown()
    fake.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries a broken connection again after 1, 2, 4, 8 and 8 seconds."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


HF_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("name", "fetched"),
    [
        ("hf://me/theirs", HF_FILES),
        ("hf://me/theirs@v1", HF_FILES),
        (f"hf://me/theirs@{COMMIT}", HF_FILES),
        ("timm/some_vit.in1k", HF_FILES),
        ("google/vit-base-patch16-224", HF_FILES),
        ("hf://me/ours", ["config.json", "reference.safetensors", "model.safetensors"]),
        ("hf://me/older", [*HF_FILES[:2], "pytorch_model.bin"]),
        (
            "hf://me/shards",
            [
                *HF_FILES[:2], "model.safetensors.index.json", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
        ("hf://me/arrays/sub/weights.npz", ["sub/weights.npz"]),
        ("hf://me/arrays/sub/deeper", [f"sub/deeper/{name}" for name in HF_FILES]),
        (
            "hf://me/arrays/sub/deeper/model.safetensors",
            [f"sub/deeper/{name}" for name in (HF_FILES[2], *HF_FILES[:2])],
        ),
    ],
)  # fmt: skip
@torch.no_grad()
def test_a_model_is_fetched_by_name_with_no_more_than_it_needs(
    server: FakeHub, name: str, fetched: list[str]
) -> None:
    model = load_model(name)
    assert server.fetched() == fetched
    assert model.load_report.path == str(find_address(name))
    if not name.endswith("npz"):
        assert model.classes == ("ant", "bee", "crow")
    weight = load_model("hf://me/ours").head.weight
    assert torch.equal(model.head.weight, weight)


def test_a_second_time_the_server_is_only_asked_whether_there_is_a_newer_one(
    server: FakeHub,
) -> None:
    load_model("hf://me/theirs")
    server.asked.clear()
    load_model("hf://me/theirs")
    assert server.asked == ["HEAD config.json"]


def test_a_new_commit_is_noticed(server: FakeHub) -> None:
    load_model("hf://me/theirs")
    server.commit = COMMIT[::-1]
    changed = server.repositories["me/theirs"]
    described = json.loads(changed["config.json"]) | {"id2label": {"0": "x", "1": "y", "2": "z"}}
    files = changed | {"config.json": json.dumps(described).encode()}
    tensors = load_file_bytes(files["model.safetensors"])
    server.repositories = server.repositories | {
        "me/theirs": files | {"model.safetensors": tensors}
    }
    assert load_model("hf://me/theirs").classes == ("x", "y", "z")


def load_file_bytes(content: bytes) -> bytes:
    """Return a file of the same tensors without what we say of them."""
    from safetensors.torch import load, save

    return save(load(content))


def test_the_client_s_token_is_sent(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load_model("hf://me/ours")
    assert server.tokens == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf://me/missing",
            "no repository me/missing on the Hub, or it is private: check the name",
        ),
        ("hf://gated/model", "hf://gated/model is open only to those .* set HF_TOKEN"),
        ("hf://me/theirs@v9", "me/theirs has no revision 'v9': give a branch"),
        ("hf://me/nothing", "hf://me/nothing has none of model.safetensors, .*/FILE"),
        ("hf://me/arrays", "hf://me/arrays has none of .*: name its file of weights"),
        ("hf://me/theirs/no/such.npz", "no/such.npz: there is no such file, nor a folder"),
        ("hf://me/torn", "has no file model-0000\\d-of-00002.safetensors, which its index names"),
        ("hf://me/bad..name", "hf://me/bad..name can't be a repository: "),
        ("hf://broken/model", r"is not in the Hub's cache, and the Hub can't be reached \(.*500"),
    ],
)
def test_what_can_t_be_had_is_told_in_one_sentence(
    server: FakeHub, impatient: None, name: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_a_server_that_is_down_is_told_unless_the_cache_has_the_model(
    server: FakeHub, impatient: None
) -> None:
    weight = load_model("hf://me/theirs").head.weight
    server.shutdown()
    server.server_close()
    assert torch.equal(load_model("hf://me/theirs").head.weight, weight)
    with pytest.raises(
        RequestError, match=r"hf://me/ours is not in the Hub's cache, and the Hub can't be reached"
    ):
        load_model("hf://me/ours")


@pytest.mark.parametrize(
    ("repository", "missing", "is_needed"),
    [
        ("me/theirs", "config.json", True),
        ("me/theirs", "preprocessor_config.json", True),
        ("me/ours", "preprocessor_config.json", False),
        ("me/ours", "reference.safetensors", False),
    ],
)
def test_offline_no_file_that_says_how_weights_are_used_is_taken_for_absent(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    repository: str, missing: str, is_needed: bool,
) -> None:  # fmt: skip
    """As where another program put a part of the repository into the cache."""
    from huggingface_hub import constants

    load_model(f"hf://{repository}")
    for path in (tmp_path / "cache").rglob(missing):  # the file, or the mark that there is none
        path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if is_needed:
        with pytest.raises(RequestError, match=f"{missing} of hf://{repository} is not in the Hub"):
            load_model(f"hf://{repository}")
    else:
        assert load_model(f"hf://{repository}").classes == ("ant", "bee", "crow")


SCRIPT = """
import sys
from vitral import load_model
from vitral.errors import VitralError
for name in sys.argv[1:]:
    try:
        print(load_model(name).load_report.path)
    except VitralError as error:
        print(error)
"""


def run_alone(*names: str, **environment: str) -> list[str]:
    """Load in a process of its own, whose client reads its environment as users know it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.slow
def test_the_client_s_variables_are_those_that_its_users_know(
    server: FakeHub, tmp_path: Path
) -> None:
    variables = {"HF_HOME": str(tmp_path / "own"), "HF_ENDPOINT": server.url}
    variables["OMP_NUM_THREADS"] = "1"
    assert run_alone("hf://me/theirs", **variables) == ["hf://me/theirs"]
    folder = tmp_path / "own" / "hub" / "models--me--theirs" / "snapshots" / COMMIT
    assert (folder / "model.safetensors").exists()
    server.asked.clear()
    assert run_alone("hf://me/theirs", "hf://me/ours", HF_HUB_OFFLINE="1", **variables) == [
        "hf://me/theirs",
        "hf://me/ours is not in the Hub's cache, and HF_HUB_OFFLINE is set: unset it once, to "
        "fetch it",
    ]
    assert server.asked == []


def test_every_name_of_weights_in_a_folder_is_tried() -> None:
    from vitral.models.weights.source import INDEX_NAMES, WEIGHT_NAMES

    assert set(hub._WEIGHTS) == {*WEIGHT_NAMES, *INDEX_NAMES}
    assert np.unique(hub._WEIGHTS).size == len(hub._WEIGHTS)
