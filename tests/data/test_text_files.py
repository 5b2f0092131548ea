"""Text files: the embedded quatrains are what their notice says; others are read or refused."""

import gzip
import hashlib

import numpy as np
import pytest

from elbo_lab.data import Text, digest, has_images, hold_out, load, spec_of, text_files
from elbo_lab.errors import UserError


def test_the_quatrains_are_those_of_the_notice_split_by_a_seed():
    path = text_files.Path(text_files.__file__).with_name("tang_quatrains.txt.gz")
    content = gzip.decompress(path.read_bytes())
    notice = path.with_name("NOTICE.tang_quatrains.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in notice
    for words in ("public domain", "MIT", "Copyright (c) 2016 JackeyGao"):
        assert words in notice
    poems = content.decode().split()
    assert len(poems) == 3772 and {len(poem) for poem in poems} == {20}
    dataset = load("tang_quatrains")
    order = np.random.RandomState(0).permutation(3772)
    for x, indices in ((dataset.x_train, order[:3400]), (dataset.x_test, order[3400:])):
        assert dataset.text.decode(x) == [poems[i] for i in indices]
    assert dataset.text.vocabulary == "".join(sorted(set("".join(poems))))
    assert spec_of(dataset, "dynamic")[:3] == ("token", (20,), 3743)
    assert dataset.text.lines(dataset.text.decode(dataset.x_train[:1])[0]) == [
        *("漢道方全盛", "朝廷足武臣", "何須薄命妾", "辛苦事和親")
    ]
    assert not has_images(dataset) and has_images(dataset._replace(text=None, kind="image"))


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_a_file_of_ones_own(tmp_path, ending):
    path = tmp_path / "rhymes.txt"
    path.write_bytes("\ufeffabca\n\nbcab".replace("\n", ending or "\n").encode() + ending.encode())
    dataset = load(str(path))
    assert dataset.name == "rhymes" and dataset.kind == "token" and dataset.levels == 3
    assert dataset.text == Text("abc", length=4, line_length=4)
    np.testing.assert_array_equal(dataset.x_train, [[0, 1, 2, 0], [1, 2, 0, 1]])
    assert dataset.x_train.dtype == np.int32 and len(dataset.x_test) == 0
    parts = hold_out(dataset, 1)
    assert len(parts.x_train) == len(parts.x_test) == 1 and parts.text == dataset.text
    assert parts.notes[-1] == "1 of its 2 examples, drawn once, are the test examples"


def test_a_file_is_read_by_anothers_vocabulary_as_test_examples(tmp_path):
    path, text = tmp_path / "more.txt", Text("abcd", length=4, line_length=2)
    path.write_text("abca\n\ndddd\n")
    dataset = text_files.load_test(str(path), text)
    assert (dataset.name, dataset.levels, dataset.text) == ("more", 4, text)
    np.testing.assert_array_equal(dataset.x_test, [[0, 1, 2, 0], [3, 3, 3, 3]])
    assert dataset.x_train.shape == (0, 4)
    for content, sentence in (
        (
            "abcd\n\nabxd",
            "line 3 has the character 'x', which is not among the 4 characters that the run was "
            "trained on.",
        ),
        (
            "abcd\nabcda",
            "line 2 has 5 characters; all lines must have 4, as those that the run was trained on.",
        ),
    ):
        path.write_text(content)
        with pytest.raises(UserError) as caught:
            text_files.load_test(str(path), text)
        assert str(caught.value) == f"{path}: {sentence}"


def test_the_vocabulary_is_part_of_the_digest(tmp_path):
    """Other characters at the same places are other data."""
    digests = []
    for name, content in (("a", "abca\nbcab"), ("b", "abda\nbdab")):
        (tmp_path / f"{name}.txt").write_text(content)
        digests.append(digest(load(str(tmp_path / f"{name}.txt"))))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"abc\n\nabcd\n",
            "line 3 has 4 characters, and line 1 has 3; all lines must have the same length.",
        ),
        (b"\n\n", "holds no text; give one example a line."),
        (b"aaa\naaa", "holds the character 'a' alone; a text has two characters at least."),
        (b"ab\n\xff\xfe", "is not UTF-8 text (byte 3 cannot be decoded)."),
        (None, "cannot be read (No such file or directory); give the path of an existing .txt"),
    ],
)
def test_files_that_are_no_texts_of_equal_length(tmp_path, content, sentence):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(str(path))
    assert str(path) in str(caught.value) and sentence in str(caught.value)


def test_texts_are_decoded_to_themselves_whatever_their_characters():
    poems = ["a\0\t", " 床a"]
    text = Text("".join(sorted(set("".join(poems)))), length=3, line_length=3)
    assert text.decode(text.encode(poems)) == poems


def test_characters_that_a_vocabulary_lacks():
    with pytest.raises(UserError, match="'abx' has the character 'x', which is not among the 3"):
        Text("abc", 3, 3).encode(["abc", "abx"])
