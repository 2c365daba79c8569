"""The model manifest: its name, its signature, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from protocol.errors import PeerFault, UserError
from protocol.identity import Signer
from protocol.inference.layers import LayerRange, parse_layers
from protocol.inference.model import ModelManifest, model_name, publish_model

MODEL = ModelManifest(name="m", architecture="llama", layers=4, width=8, vocabulary=16, context=64)


def test_model_name_follows_from_the_content_alone() -> None:
    published = [publish_model(MODEL, "cpu", Signer(bytes([key]) * 32)) for key in (1, 2)]
    assert {model_name(one.open()) for one in published} == {model_name(MODEL)}
    assert published[0].open() == MODEL
    assert model_name(msgspec.structs.replace(MODEL, name="other words")) == model_name(MODEL)
    assert model_name(msgspec.structs.replace(MODEL, layers=5)) != model_name(MODEL)


def test_signed_model_refuses_what_its_publisher_did_not_sign() -> None:
    signed = publish_model(MODEL, "cpu", Signer(b"1" * 32))
    other = publish_model(msgspec.structs.replace(MODEL, layers=5), "cpu", Signer(b"1" * 32))
    for changed in (
        msgspec.structs.replace(signed, body=other.body),
        msgspec.structs.replace(signed, kernel="another"),
        msgspec.structs.replace(signed, publisher=Signer(b"2" * 32).peer),
    ):
        with pytest.raises(PeerFault, match="signature"):
            changed.open()


def test_signed_model_refuses_bytes_that_are_no_manifest() -> None:
    class Other(msgspec.Struct):
        name: str = "m"

    signer = Signer(b"1" * 32)
    garbage = publish_model(Other(), "cpu", signer)  # type: ignore[arg-type]
    with pytest.raises(PeerFault, match="not a model manifest"):
        garbage.open()


def test_parse_layers_reads_a_range_of_the_model() -> None:
    assert parse_layers("1:3", 4) == LayerRange(first=1, stop=3)
    for text in ("", "1", "3:1", "1:1", "0:5", "-1:2", "a:b", "0:99999999"):
        with pytest.raises(UserError, match="LAYERS"):
            parse_layers(text, 4)


def test_layer_range_refuses_no_layers() -> None:
    with pytest.raises(ValueError, match="no range"):
        LayerRange(first=2, stop=2)
