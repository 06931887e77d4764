"""The YAML before a card's Markdown by which Hugging Face's hub knows a model: its task, and its results."""

from xray.outputs.card.facts import Facts, dict_in, value_in

PIPELINES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}
RESULTS = {"map40": "mAP@0.4", "dice": "Dice", "mean_auroc": "AUROC"}
TAGS = ["chest-x-ray", "radiology", "medical-imaging", "not-for-clinical-use"]


def metadata_of(facts: Facts) -> str:
    """YAML as huggingface_hub writes it. A licence is there only where a note names one."""
    from huggingface_hub import EvalResult, ModelCardData

    pipeline = next((name for task, name in PIPELINES.items() if task in facts.models[0].task), None)
    scored = dict_in(dict_in(facts.metrics, "fingerprint"), "scored")
    digest = str(scored.get("annotations_sha256", "not known"))
    results = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type="chest radiographs",
            dataset_name=f"annotations of what was scored, SHA-256 {digest}",
            metric_type=name,
            metric_name=title,
            metric_value=value_in(facts.metrics, name),
        )
        for name, title in RESULTS.items()
        if value_in(facts.metrics, name) == value_in(facts.metrics, name)
    ]
    # The hub knows licences by names of its own; any other is "other", with its name.
    licence = facts.notes.get("licence")
    data = ModelCardData(
        library_name="xray",
        pipeline_tag=pipeline,
        tags=TAGS,
        license="other" if licence else None,
        license_name=licence,
        model_name=facts.name,
        eval_results=results or None,
    )
    return data.to_yaml().strip() + "\n"
