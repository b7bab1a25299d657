"""The weights file: one flipped bit anywhere is noticed, and no header takes the memory or the stack."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vmkla.config import ModelConfig
from vmkla.engines import load_runner
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError
from vmkla.models import VMKLAUNet
from vmkla.models.checkpoints import load_weights, save_weights
from vmkla.models.weights_file import CONTENT_SHA256, NO_CHECKSUM, encode, read_weights

CONFIG = ModelConfig(
    name="micro", dim=8, encoder_depths=(1,) * 4, decoder_depths=(1,) * 4, head_dim=8, d_state=2, kan_hidden=6
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    torch.manual_seed(33)
    save_weights(VMKLAUNet(CONFIG), path, training={"image_size_hw": [32, 32], "roi": "none"})
    return path.read_bytes()


@pytest.fixture
def micro(saved: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "micro.safetensors"
    path.write_bytes(saved)
    return path


def header_of(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", data)
    return dict(json.loads(data[8 : 8 + length]))


def with_header(data: bytes, header: dict[str, Any] | bytes) -> bytes:
    """Another header before the same tensors."""
    (length,) = struct.unpack_from("<Q", data)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def resealed(path: Path, **entries: str) -> Path:
    """The same tensors under other entries, with a checksum that fits."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **entries}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    header.pop(CONTENT_SHA256)
    path.write_bytes(encode(tensors, header))
    return path


def test_one_flipped_bit_anywhere_is_noticed(micro: Path, saved: bytes) -> None:
    rng = random.Random(6)
    (length,) = struct.unpack_from("<Q", saved)
    places = [*range(8), *(rng.randrange(8, 8 + length) for _ in range(100))]
    places += [rng.randrange(8 + length, len(saved)) for _ in range(100)]
    unnoticed = []
    for at in places:
        bit = rng.randrange(8)
        micro.write_bytes(saved[:at] + bytes([saved[at] ^ 1 << bit]) + saved[at + 1 :])
        try:
            load_weights(micro)
        except VmklaError as error:
            assert error.exit_status in (3, 6) and error.hint
        else:
            unnoticed.append((at, bit))
    # A space behind the header's end that becomes another white space is no damage to anything.
    assert [at for at, _ in unnoticed if saved[at] != 0x20] == []


def test_a_flipped_bit_of_a_weight_names_the_damage(micro: Path, saved: bytes) -> None:
    micro.write_bytes(saved[:-9] + bytes([saved[-9] ^ 1]) + saved[-8:])
    with pytest.raises(ArtefactMismatchError, match=r"is damaged.*its content has sha256") as caught:
        load_weights(micro)
    assert caught.value.exit_status == 6 and "fetch it again" in (caught.value.hint or "")


def test_a_file_of_before_there_were_checksums(micro: Path) -> None:
    with safetensors.safe_open(micro, framework="pt") as file:
        header, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}
    del header[CONTENT_SHA256]
    safetensors.torch.save_file(tensors, micro, metadata=header)
    assert load_weights(micro).notes == (NO_CHECKSUM,)
    assert load_runner(micro).spec.notes == (NO_CHECKSUM,)
    assert load_weights(resealed_again(micro)).notes == ()


def resealed_again(path: Path) -> Path:
    file = read_weights(path)
    path.write_bytes(encode(file.tensors, file.header))
    return path


def change_tensor(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["head.norm.bias"].update(values)


@pytest.mark.parametrize(
    "change",
    [
        change_tensor(dtype="X99"),
        change_tensor(shape=[1 << 62, 1 << 62]),
        change_tensor(shape=[-8]),
        change_tensor(shape="8"),
        change_tensor(shape=[1e400]),
        change_tensor(data_offsets=[0, 1 << 63]),
        change_tensor(data_offsets=[8, 0]),
        change_tensor(data_offsets=None),
        lambda header: header.update({"head.norm.bias": []}),
        lambda header: header.update({"__metadata__": []}),
        lambda header: header["__metadata__"].update({"vmkla.format": 1}),
        lambda header: header["__metadata__"].update({"vmkla.training": {}}),
    ],
)
def test_headers_that_make_no_sense(micro: Path, saved: bytes, change: Any) -> None:
    header = header_of(saved)
    change(header)
    micro.write_bytes(with_header(saved, header))
    with pytest.raises(BadInputError, match="cannot be read as safetensors") as caught:
        load_weights(micro)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"[]",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a":1,"a":2}',
    ],
    ids=["deep lists", "deep names", "list", "bytes", "nan", "huge", "twice"],
)
def test_headers_that_are_not_read(micro: Path, saved: bytes, text: bytes) -> None:
    micro.write_bytes(with_header(saved, text))
    with pytest.raises(BadInputError, match="cannot be read as safetensors"):
        load_weights(micro)


def test_a_header_of_many_megabytes_is_not_parsed(micro: Path, saved: bytes) -> None:
    micro.write_bytes(with_header(saved, b'{"a": "' + b"x" * (17 << 20) + b'"}'))
    with pytest.raises(BadInputError, match="larger than 16,777,216 bytes"):
        load_weights(micro)
    micro.write_bytes(struct.pack("<Q", (1 << 64) - 1) + saved[8:])
    with pytest.raises(BadInputError, match="bytes beyond it"):
        load_weights(micro)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("vmkla.model_config", "[" * 100_000),
        ("vmkla.model_config", "[]"),
        ("vmkla.model_config", '{"dim": 1e400}'),
        ("vmkla.model_config", '{"dim": "8"}'),
        ("vmkla.model_config", '{"dim": true}'),
        ("vmkla.model_config", '{"dim": 1000000000}'),
        ("vmkla.model_config", '{"dim": 99999999999999999999}'),
        ("vmkla.model_config", '{"encoder_depths": 3}'),
        ("vmkla.model_config", '{"encoder_depths": [1, 1, 1]}'),
        ("vmkla.model_config", '{"encoder_depths": [1000000000, 1, 1, 1]}'),
        ("vmkla.model_config", '{"decoder_block": ["mkcsa"]}'),
        ("vmkla.class_names", "3"),
        ("vmkla.class_names", '["one", "two"]'),
        ("vmkla.threshold", "1e400"),
        ("vmkla.threshold", "[0.5]"),
        ("vmkla.threshold", "-1"),
        ("vmkla.training", "[]"),
        ("vmkla.training", '{"image_size_hw": [32]}'),
        ("vmkla.training", '{"image_size_hw": [32, 1e99]}'),
        ("vmkla.training", '{"image_size_hw": [32, 100000000]}'),
        ("vmkla.training", '{"image_size_hw": [32, 32], "roi": [0, 0, 8]}'),
        ("vmkla.training", '{"image_size_hw": [32, 32], "roi": {}}'),
    ],
)
def test_entries_that_make_no_sense(micro: Path, key: str, text: str) -> None:
    resealed(micro, **{key: text})
    with pytest.raises(ArtefactMismatchError, match="damaged vmkla header") as caught:
        load_weights(micro)
    assert caught.value.exit_status == 6 and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "described", [{"dim": 4096, "d_state": 4096}, {"encoder_depths": [4096, 4096, 4096, 4096]}]
)
def test_a_huge_network_is_refused_before_it_takes_memory(micro: Path, described: dict[str, Any]) -> None:
    resealed(micro, **{"vmkla.model_config": json.dumps({**CONFIG.to_dict(), **described})})
    with pytest.raises(ArtefactMismatchError, match="does not fit the network that its own header describes"):
        load_weights(micro)
