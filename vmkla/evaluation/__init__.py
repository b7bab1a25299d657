"""Measure how good a loaded model is on labelled images, with any runner and without torch."""

from vmkla.evaluation.evaluate import evaluate
from vmkla.evaluation.judge import ImageResult, LabelledImage, MaskComparison, judge
from vmkla.evaluation.summary import summarise

__all__ = ["ImageResult", "LabelledImage", "MaskComparison", "evaluate", "judge", "summarise"]
