import json
import os
from pathlib import Path

import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.errors import BundleFault

FILES = {
    "model.onnx": b"weights",
    "card.md": b"# card",
    "reference.json": b'{"a": [1, 2]}',
    "code/train.py": b"def fit(): ...\n",
}


@pytest.fixture
def signed(pack, homes) -> Path:
    return pack(homes, FILES, reference="reference.json", metrics={"rmse": 0.6})


@pytest.fixture
def ring(environment) -> dict[str, str]:
    return keys.keyring(environment)


def refused(folder: Path, ring: dict[str, str]) -> BundleFault:
    with pytest.raises(BundleFault) as caught:
        bundle.verify(folder, ring)
    return caught.value


def test_a_manifest_comes_back_as_it_was_written(signed, ring, homes):
    manifest = bundle.verify(signed, ring)

    assert manifest.schema == homes
    assert (manifest.model, manifest.flavour, manifest.reference) == (
        "homes",
        "onnx",
        "reference.json",
    )
    assert manifest.metrics == {"rmse": 0.6}
    assert manifest.files.keys() == FILES.keys()


def test_the_same_files_and_manifest_have_the_same_identity(pack, homes):
    first = bundle.digest(pack(homes, FILES))

    assert bundle.digest(pack(homes, FILES)) == first
    assert bundle.digest(pack(homes, FILES | {"card.md": b"# cart"})) != first


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "signature.json"])
def test_one_altered_bit_anywhere_is_found(signed, ring, name):
    path = signed / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)

    fault = refused(signed, ring)

    assert fault.code in ("bundle.altered", "bundle.untrusted")


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "signature.json"])
@pytest.mark.parametrize("keep", [0, 5])
def test_a_truncated_file_is_found(signed, ring, name, keep):
    (signed / name).write_bytes((signed / name).read_bytes()[:keep])

    fault = refused(signed, ring)

    assert fault.code in ("bundle.truncated", "bundle.altered")


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "signature.json"])
def test_a_file_that_is_gone_is_named(signed, ring, name):
    (signed / name).unlink()

    fault = refused(signed, ring)

    assert fault.code == ("bundle.unsigned" if name == "signature.json" else "bundle.missing")
    assert name in fault.message


@pytest.mark.parametrize("name", ["extra.py", "code/features.py", ".hidden", "sub/manifest.json"])
def test_a_file_that_nobody_signed_is_refused(signed, ring, name):
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_bytes(b"import os")

    fault = refused(signed, ring)

    assert (fault.code, fault.file) == ("bundle.altered", name)


def test_a_link_is_not_followed_even_to_the_same_bytes(signed, ring, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (signed / "model.onnx").rename(elsewhere)
    (signed / "model.onnx").symlink_to(elsewhere)

    assert refused(signed, ring).file == "model.onnx"


def test_a_linked_folder_is_not_followed(signed, ring, tmp_path):
    (signed / "code").rename(tmp_path / "code")
    (signed / "code").symlink_to(tmp_path / "code")

    assert refused(signed, ring).file == "code"


def test_a_pipe_is_refused_and_not_waited_for(signed, ring):
    (signed / "card.md").unlink()
    os.mkfifo(signed / "card.md")

    assert refused(signed, ring).file == "card.md"


def test_a_key_of_another_environment_is_not_trusted_until_it_is_in_the_ring(
    signed, environment, tmp_path
):
    other = tmp_path / "other"
    keys.create_keys(other)

    assert refused(signed, keys.keyring(other)).code == "bundle.untrusted"
    keys.trust(other, keys.public_key(keys.private_key(environment)))
    assert bundle.verify(signed, keys.keyring(other)).model == "homes"


def test_a_signature_of_a_key_that_borrows_a_trusted_name_is_refused(signed, ring, tmp_path):
    other = tmp_path / "other"
    keys.create_keys(other)
    bundle.sign(signed, keys.private_key(other))
    value = json.loads((signed / "signature.json").read_bytes())
    (signed / "signature.json").write_text(json.dumps(value | {"key": next(iter(ring))}))

    assert refused(signed, ring).code == "bundle.altered"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "code/../../x", "a//b", ""])
def test_a_signed_manifest_cannot_reach_outside_its_folder(signed, ring, environment, name):
    value = json.loads((signed / "manifest.json").read_bytes())
    value["files"][name] = {"sha256": "0" * 64, "size": 1}
    (signed / "manifest.json").write_text(json.dumps(value))
    bundle.sign(signed, keys.private_key(environment))

    assert refused(signed, ring).code == "bundle.malformed"


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"format": 2}', "[" * 100_000, '{"format": 1, "model": 3}']
)
def test_a_signed_manifest_that_is_none_is_refused(signed, ring, environment, text):
    (signed / "manifest.json").write_text(text)
    bundle.sign(signed, keys.private_key(environment))

    assert refused(signed, ring).code == "bundle.malformed"


def test_writing_again_takes_the_old_signature_away(signed, ring, homes):
    bundle.write(signed, bundle.Manifest("homes", "onnx", homes))

    assert refused(signed, ring).code == "bundle.unsigned"


def test_a_file_swapped_after_the_check_is_found_as_it_is_read(signed, ring):
    manifest = bundle.verify(signed, ring)
    (signed / "model.onnx").write_bytes(b"WEIGHTS")

    with pytest.raises(BundleFault, match="not the file that was signed"):
        bundle.read_file(signed, manifest, "model.onnx")
