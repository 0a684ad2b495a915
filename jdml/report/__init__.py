"""Pictures of a run, and a page of an evaluation that opens anywhere.

`training_curve`, `retrieval_gallery`, `similarity_histogram` and `embedding_map` write PNG files.
`write_html` writes what `measure` found as one HTML file:

    measured = report.measure(report.Items(embeddings, labels, images))
    report.write_html("report.html", measured, title="My model")
"""

from jdml.report.html import write_html
from jdml.report.measure import Items, Measured, Score, measure
from jdml.report.pictures import (
    embedding_map,
    retrieval_gallery,
    similarity_histogram,
    training_curve,
)

__all__ = [
    "Items",
    "Measured",
    "Score",
    "embedding_map",
    "measure",
    "retrieval_gallery",
    "similarity_histogram",
    "training_curve",
    "write_html",
]
