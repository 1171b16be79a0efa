"""(b) A FastAPI endpoint with a pydantic model of the same columns that answers a constant."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Row(BaseModel):
    age: float
    anaemia: bool
    creatinine: float
    diabetes: bool
    ejection_fraction: float
    platelets: float
    sodium: float
    sex: bool


@app.post("/predict")
async def predict(row: Row) -> dict:
    return {"prediction": 1, "probabilities": {"0": 0.49, "1": 0.51}}
