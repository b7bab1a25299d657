"""How good a loaded model is on labelled images. No torch here: any runner can be judged."""

from vmkla.evaluation.evaluate import evaluate
from vmkla.evaluation.judge import Comparison, ImageResult, LabelledImage, judge
from vmkla.evaluation.summary import summarise

__all__ = ["Comparison", "ImageResult", "LabelledImage", "evaluate", "judge", "summarise"]
