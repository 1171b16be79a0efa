"""What one would write by hand without a record: joblib and a DataFrame."""

import os

import joblib
import pandas as pd
from apps.empty_fastapi import Row
from fastapi import FastAPI

model = joblib.load(os.environ["BENCH_MODEL"])
app = FastAPI()


@app.post("/predict")
def predict(row: Row) -> dict:
    probabilities = model.predict_proba(pd.DataFrame([row.model_dump()]))[0]
    return {
        "prediction": int(probabilities.argmax()),
        "probabilities": {"0": float(probabilities[0]), "1": float(probabilities[1])},
    }
