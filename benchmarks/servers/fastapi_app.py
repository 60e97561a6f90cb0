"""The textbook server: FastAPI, pydantic, a pickled XGBoost model, a plain ``def`` handler.

What most tutorials end with. ``BENCH_PICKLE`` names the model; run it under uvicorn with one or two workers.
"""

import os
import pickle
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(os.environ["BENCH_PICKLE"]).read_bytes())
model.set_params(n_jobs=1)
app = FastAPI()


class Request(BaseModel):
    instances: list[list[float]]


class Response(BaseModel):
    predictions: list[list[float]]


@app.post("/predict")
def predict(request: Request) -> Response:
    rows = np.array(request.instances, dtype=np.float32)
    return Response(predictions=model.predict_proba(rows).tolist())
