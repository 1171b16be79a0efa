"""Addresses of databases as people and logs see them."""

import pytest

from onrecord.record.database import Database
from onrecord.settings import load_settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cret@db.example/record",
        "postgresql://ada@db.example/record?password=s3cret",
        "postgresql://db.example/record?user=ada&sslpassword=s3cret&sslmode=require",
        "postgresql://ada:s3cret@db.example/record?passwd=s3cret",
    ],
)
def test_a_databases_password_is_masked_wherever_it_stands(url: str) -> None:
    shown = str(load_settings(database=url).shown()["database"])

    assert "s3cret" not in shown
    assert "db.example/record" in shown
    assert Database(url).url == shown
