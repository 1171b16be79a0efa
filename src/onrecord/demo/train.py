"""Trains the demo's model, which tells the species of a penguin.

344 real penguins with numbers, a category, a boolean and missing values.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

__all__ = ["train"]


def train(directory: Path) -> Path:
    """Train the model and write its model directory; return the directory."""
    import pandas as pd
    import skops.io
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    with files("onrecord.demo").joinpath("penguins.csv").open() as source:
        data = pd.read_csv(source)
    data["male"] = data["sex"].map({"male": 1.0, "female": 0.0})
    measures = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    features = data[["island", *measures, "male"]]
    model = Pipeline(
        [
            (
                "prepare",
                ColumnTransformer(
                    [
                        ("island", OneHotEncoder(handle_unknown="ignore"), ["island"]),
                        ("numbers", SimpleImputer(strategy="median"), measures),
                        ("male", SimpleImputer(strategy="most_frequent"), ["male"]),
                    ]
                ),
            ),
            ("forest", RandomForestClassifier(n_estimators=100, random_state=0)),
        ]
    )
    model.fit(features, data["species"])
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, directory / "model.skops")
    (directory / "input_schema.json").write_text(json.dumps(_schema(measures), indent=2))
    return directory


def _schema(measures: list[str]) -> dict[str, object]:
    """Return the schema: bounds a little wider than what was measured."""
    said = {
        "bill_length_mm": ("Length of the bill", "mm", 25, 70),
        "bill_depth_mm": ("Depth of the bill", "mm", 10, 25),
        "flipper_length_mm": ("Length of the flipper", "mm", 150, 250),
        "body_mass_g": ("Body mass", "g", 2000, 7000),
    }
    columns: list[dict[str, object]] = [
        {
            "name": "island",
            "type": "categorical",
            "categories": ["Biscoe", "Dream", "Torgersen"],
            "description": "The island of the colony",
            "example": "Torgersen",
        }
    ]
    examples = {"bill_length_mm": 39.1, "bill_depth_mm": 18.7}
    examples |= {"flipper_length_mm": 181, "body_mass_g": 3750}
    for name in measures:
        description, unit, least, most = said[name]
        columns.append(
            {
                "name": name,
                "type": "numeric",
                "nullable": True,
                "minimum": least,
                "maximum": most,
                "unit": unit,
                "description": description,
                "example": examples[name],
            }
        )
    columns.append(
        {
            "name": "male",
            "type": "boolean",
            "nullable": True,
            "description": "Whether it is a male; null where nobody knows",
            "example": True,
        }
    )
    return {
        "input_schema": {
            "columns": columns,
            "name": "penguins",
            "target": "species",
            "task": "classification",
            "classes": ["Adelie", "Chinstrap", "Gentoo"],
        }
    }
