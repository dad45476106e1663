import json
import stat

import pytest
from gyrostat_runtime import keys
from gyrostat_runtime.errors import RuntimeFault


def test_making_keys_twice_changes_nothing(environment):
    before = {p.name: p.read_bytes() for p in environment.iterdir()}

    keys.create_keys(environment)

    assert {p.name: p.read_bytes() for p in environment.iterdir()} == before
    assert before.keys() == {"signing.key", "log.key", "keyring.json"}


@pytest.mark.parametrize("name", ["signing.key", "log.key"])
def test_secrets_are_readable_by_their_owner_alone(environment, name):
    assert stat.S_IMODE((environment / name).stat().st_mode) == 0o600


def test_the_ring_names_the_public_half_under_its_id(environment):
    public = keys.public_key(keys.private_key(environment))

    assert keys.keyring(environment) == {keys.key_id(public): public}


def test_trust_that_was_taken_away_does_not_come_back(environment):
    (environment / "keyring.json").write_text("{}")

    keys.create_keys(environment)

    assert keys.keyring(environment) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{"])
def test_a_broken_ring_is_an_error_and_not_an_empty_one(environment, text):
    (environment / "keyring.json").write_text(text)

    with pytest.raises(RuntimeFault, match=r"keyring\.json"):
        keys.keyring(environment)


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31])
def test_a_broken_key_is_an_error_that_does_not_show_it(environment, text):
    (environment / "signing.key").write_text(text)

    with pytest.raises(RuntimeFault) as caught:
        keys.private_key(environment)

    assert "signing.key" in caught.value.message
    assert not text or text not in caught.value.message


def test_every_environment_has_keys_of_its_own(environment, tmp_path):
    keys.create_keys(tmp_path / "other")

    assert keys.private_key(environment) != keys.private_key(tmp_path / "other")
    assert keys.log_key(environment) != keys.log_key(tmp_path / "other")
    assert len(keys.log_key(environment)) == 32


def test_an_added_key_is_kept_beside_the_first(environment):
    name = keys.trust(environment, "ab" * 32)

    ring = json.loads((environment / "keyring.json").read_text())
    assert len(ring) == 2
    assert ring[name] == "ab" * 32
