from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_router.config_store import codec
from tenant_router.config_store.codec import decode, encode
from tenant_router.config_store.serializers.base import Serializer
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.config_store.serializers.pickle import PickleSerializer
from tenant_router.exceptions import SerializerError
from tenant_router.secrets import plain

RECORD = {"orm_config": {"django_orm": {"default": {"NAME": "db", "PASSWORD": "canary"}}}, "state": "A"}


@pytest.fixture(params=[JSONSerializer(), PickleSerializer()], ids=["json", "pickle"])
def serializer(request: pytest.FixtureRequest) -> Serializer:
    found: Serializer = request.param
    return found


def test_a_record_comes_back_as_it_was(serializer: Serializer) -> None:
    record = decode("a", encode("a", RECORD, serializer), serializer)
    assert plain(record) == RECORD
    assert plain(decode("a", encode("a", record, serializer), serializer)) == RECORD
    assert decode("@meta", encode("@meta", {}, serializer), serializer) == {}


def test_the_envelope_names_the_format(serializer: Serializer) -> None:
    magic, name, nonce, payload = encode("a", RECORD, serializer).split(b"|", 3)
    assert (magic, name) == (b"T1", serializer.name.encode())
    assert len(bytes.fromhex(nonce.decode())) == 16
    assert serializer.loads(payload) == {"v": 1, "id": "a", **RECORD}


def test_equal_records_have_different_bytes(serializer: Serializer) -> None:
    assert encode("a", RECORD, serializer) != encode("a", RECORD, serializer)


def test_another_tenants_envelope_is_refused(serializer: Serializer) -> None:
    with pytest.raises(SerializerError, match=r"'tenant_10'.*another tenant"):
        decode("tenant_10", encode("tenant_1", RECORD, serializer), serializer)


def test_another_serializers_envelope_says_what_to_set() -> None:
    with pytest.raises(SerializerError) as caught:
        decode("a", encode("a", RECORD, JSONSerializer()), PickleSerializer())
    for part in ("'a'", "'json'", "'pickle'", "TENANT_ROUTER_CONFIG_STORE_SETTINGS", "SERIALIZER", "CLASS"):
        assert part in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, True, "1", None])
def test_another_version_is_refused(serializer: Serializer, version: Any) -> None:
    header = encode("a", {}, serializer).rsplit(b"|", 1)[0][: len(serializer.name) + 36]
    body = header + b"|" + serializer.dumps({"v": version, "id": "a"})
    with pytest.raises(SerializerError, match="version"):
        decode("a", body, serializer)


@pytest.mark.parametrize("key", ["v", "id"])
def test_the_envelopes_own_keys_cannot_be_used(serializer: Serializer, key: str) -> None:
    with pytest.raises(SerializerError, match=key):
        encode("a", {key: "x"}, serializer)


@settings(max_examples=40, deadline=None)
@given(body=st.binary(max_size=200))
def test_garbage_is_an_error_of_ours(body: bytes) -> None:
    for offered in (body, b"T1|json|" + body, b"T1|json|" + b"0" * 32 + b"|" + body):
        with pytest.raises(SerializerError):
            decode("a", offered, JSONSerializer())


def test_errors_carry_no_value(serializer: Serializer) -> None:
    body = encode("a", RECORD, serializer)
    for broken in (b"T2" + body[2:], body[:-1], body.replace(b"T1|", b""), b"canary"):
        with pytest.raises(SerializerError) as caught:
            decode("a", broken, serializer)
        assert "'a'" in str(caught.value) or "stored record" in str(caught.value)
        assert "canary" not in str(caught.value)


def test_what_databases_are_stamped_with_is_beside_the_record_and_no_part_of_it():
    record, incarnation = {"orm_config": {}}, "0123456789abcdef" * 2
    body = codec.encode("a.test", record, JSONSerializer(), incarnation)
    assert codec.incarnation_of(body) == incarnation
    assert codec.incarnation_of(body.replace(b";i=", b";x=1;i=")) == incarnation
    assert codec.incarnation_of(codec.encode("a.test", record, JSONSerializer())) == ""
    assert codec.incarnation_of(b"anything;i=" + incarnation.encode()) == ""
    assert codec.decode("a.test", body, JSONSerializer()) == record
    assert codec.holds("a.test", body, record, JSONSerializer())
    other = codec.stamped(body, "")
    assert (codec.incarnation_of(other), codec.decode("a.test", other, JSONSerializer())) == ("", record)
    with pytest.raises(SerializerError):
        codec.stamped(b"anything", incarnation)
