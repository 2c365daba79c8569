"""Tests tokenizers and chat templates of served models. Needs the extra "hf"."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from daemon.device.process.local_model import open_local_model
from daemon.device.settings import WorkerSettings
from daemon.models.text_tokens import ByteTokenizer, FileTokenizer
from protocol.digest import digest
from protocol.ports.stage import ChatMessage
from tests.daemon.device.stages.random_models import TEXT, random_model, small_tokenizer


@pytest.mark.real
def test_served_model_has_the_tokenizer_of_transformers(tmp_path: Path) -> None:
    random_model("llama, tied", tmp_path)
    model = trio.run(open_local_model, tmp_path, "tiny", WorkerSettings(device="cpu", threads=1))
    expected, found, manifest = small_tokenizer(), model.tokenizer(), model.manifest
    assert found.encode(TEXT) == expected(TEXT)["input_ids"]
    assert found.decode(found.encode(TEXT)) == TEXT
    assert digest(model.tokenizer_file()) == manifest.tokenizer_digest
    # Both the tokenizer's and the one of the model's generation_config.json.
    assert manifest.end_tokens == (expected.eos_token_id, 2)
    chat = [ChatMessage(role="user", content="quick fox"), ChatMessage(role="user", content="rain")]
    given = [{"role": one.role, "content": one.content} for one in chat]
    assert found.chat(chat) == expected.apply_chat_template(given, tokenize=False)


def file_of(template: str) -> FileTokenizer:
    return FileTokenizer(small_tokenizer().backend_tokenizer.to_str().encode(), template)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{% for m in %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[7].content }}",
        "{{ 1 // 0 }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{{ missing('x') }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'x' * 10 ** 17 }}",
    ],
)
def test_template_that_fails_or_reaches_for_python_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        file_of(template).chat([ChatMessage(role="user", content="hello")])


def test_template_that_calls_itself_is_refused_where_a_library_lifted_the_limit() -> None:
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        with pytest.raises(ValueError, match="template"):
            file_of("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}").chat(
                [ChatMessage(role="user", content="hello")]
            )
        assert sys.getrecursionlimit() == 10_000
    finally:
        sys.setrecursionlimit(usual)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_tokenizer_file_of_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        FileTokenizer(content, "")


def test_token_that_is_no_byte_is_no_text() -> None:
    assert ByteTokenizer().decode([97, 300, 98]) == "a\N{REPLACEMENT CHARACTER}b"
