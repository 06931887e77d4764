"""Names of the files that one room writes and others read. Nothing is imported for them, so that every room may."""

# A dataset directory.
ANNOTATIONS = "annotations.json"
IMAGES = "images.npy"
CONVERSION = "conversion.json"

# A run directory.
CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
MODEL_FILE = "model.json"
LAST, BEST = "last.ckpt", "best.ckpt"
CURVES = "metrics.csv"
TRAINED_ON = "trained_on.json"
"""In the directory of a cross-validation, too."""
VALIDATED = "validation/predictions.json"
ENSEMBLE = "ensemble.yaml"

# Predictions, what stands beside them, and what is said of them.
PREDICTIONS = "predictions.json"
UNFINISHED = "predictions.part"
"""The findings so far, until all radiographs are done."""
SUBMISSION = "submission.csv"
LABELS = "labels.csv"
MADE_BY = "made_by.json"
METRICS = "metrics.json"
REPORT = "report.html"
