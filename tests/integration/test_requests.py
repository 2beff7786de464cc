"""Requests of two tenants through Django's own handler."""

from django.test import Client


def test_each_host_reads_its_own_database(two):
    a, b = Client(headers={"host": "a.test"}), Client(headers={"host": "b.test"})
    a.post("/notes/", {"text": "only a"}, content_type="application/json")
    assert a.get("/notes/").json() == {"notes": ["only a"]}
    assert b.get("/notes/").json() == {"notes": []}
    assert a.get("/notes/raw/").json() == {"notes": ["only a"]}
    assert a.get("/notes/rollback/").json() == {"notes": ["only a"]}
