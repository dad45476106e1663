"""The store of bundles: whole or not there, once, and nothing is opened that nobody vouches for."""

import pytest
from gyrostat_runtime import bundle, keys
from gyrostat_runtime.schema import Column, Feature, Output, Schema

from gyrostat.errors import BundleError
from gyrostat.registry import bundles

SCHEMA = Schema((Column("x", "number"),), (Feature("x", "x"),), Output("regression", "y"))


def made(folder, *, text=b"weights"):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(text)
    return bundle.write(folder, bundle.Manifest(model="wine", flavour="onnx", schema=SCHEMA))


@pytest.fixture
def ring(tmp_path):
    """A trusted key; `tmp_path/keys` holds the private one."""
    keys.create_keys(tmp_path / "keys")
    return keys.keyring(tmp_path / "keys")


def signed(tmp_path, name="job", **more):
    digest = made(tmp_path / name, **more)
    bundle.sign(tmp_path / name, keys.private_key(tmp_path / "keys"))
    return digest


def test_a_published_bundle_is_found_by_its_digest(tmp_path, ring):
    digest = signed(tmp_path)
    target = bundles.publish(tmp_path, tmp_path / "job", digest)
    assert target == bundles.path(tmp_path, digest)
    assert bundles.known(tmp_path) == [digest]
    assert bundles.verify(tmp_path, digest, ring).model == "wine"
    assert not (tmp_path / "job").exists()


def test_publishing_twice_changes_nothing(tmp_path, ring):
    digest = signed(tmp_path)
    bundles.publish(tmp_path, tmp_path / "job", digest)
    assert signed(tmp_path, "again") == digest
    bundles.publish(tmp_path, tmp_path / "again", digest)
    bundles.publish(tmp_path, tmp_path / "gone", digest)
    assert bundles.known(tmp_path) == [digest]
    bundles.verify(tmp_path, digest, ring)


def test_another_bundle_is_not_published_under_a_digest(tmp_path):
    made(tmp_path / "job")
    with pytest.raises(BundleError, match="Nothing was published"):
        bundles.publish(tmp_path, tmp_path / "job", "0" * 64)
    assert bundles.known(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "../../etc", "0" * 63, "G" * 64])
def test_what_is_no_digest_never_becomes_a_path(tmp_path, digest):
    with pytest.raises(BundleError, match="names no bundle"):
        bundles.path(tmp_path, digest)


def test_an_altered_file_is_found_before_it_is_opened(tmp_path, ring):
    digest = signed(tmp_path)
    target = bundles.publish(tmp_path, tmp_path / "job", digest)
    (target / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(BundleError, match="Nothing in it was opened"):
        bundles.verify(tmp_path, digest, ring)


def test_a_signed_bundle_under_the_name_of_another_is_refused(tmp_path, ring):
    one, other = signed(tmp_path, "one"), signed(tmp_path, "other", text=b"other weights")
    target = bundles.publish(tmp_path, tmp_path / "one", one)
    target.rename(bundles.path(tmp_path, other))
    with pytest.raises(BundleError, match=f"holds the bundle {one[:12]}"):
        bundles.verify(tmp_path, other, ring)


def test_a_bundle_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(BundleError, match="is not in bundles/"):
        bundles.verify(tmp_path, "0" * 64, {})
