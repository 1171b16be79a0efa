"""(d) What one would write by hand: joblib, a DataFrame, one SQLite commit a call."""

import json
import os
import sqlite3
import threading
from pathlib import Path

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

HOME = Path(os.environ["BENCH_HOME"])
model = joblib.load(os.environ["BENCH_MODEL"])
app = FastAPI()
local = threading.local()


class Row(BaseModel):
    age: float
    anaemia: bool
    creatinine: float
    diabetes: bool
    ejection_fraction: float
    platelets: float
    sodium: float
    sex: bool


def connection() -> sqlite3.Connection:
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(HOME / "by_hand.db", timeout=30)
        local.connection.execute("PRAGMA journal_mode=WAL")
        local.connection.execute("PRAGMA synchronous=FULL")
        local.connection.execute("CREATE TABLE IF NOT EXISTS calls (input TEXT, output TEXT)")
    return local.connection


@app.post("/predict")
def predict(row: Row) -> dict:
    probabilities = model.predict_proba(pd.DataFrame([row.model_dump()]))[0]
    answer = {
        "prediction": int(probabilities.argmax()),
        "probabilities": {"0": float(probabilities[0]), "1": float(probabilities[1])},
    }
    with connection() as opened:
        opened.execute(
            "INSERT INTO calls VALUES (?, ?)", (row.model_dump_json(), json.dumps(answer))
        )
    return answer
